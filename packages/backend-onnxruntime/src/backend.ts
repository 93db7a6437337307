/**
 * The TensorFlow.js side: data ids, reference counts, and the moment at which collected kernels run. A kernel call
 * only adds nodes to a graph. The graph runs ("flushes") when somebody reads data, when a kernel reads a *variable*
 * whose new value is still pending (which is where the next training step begins, whatever loop it is in), when it has
 * grown too long, or when asked. Everything that is still held is computed then, so that nothing is computed twice.
 */
import {
  type BackendTimingInfo,
  type BackendValues,
  backend_util,
  type DataId,
  DataStorage,
  type DataType,
  engine,
  KernelBackend,
  type NamedAttrMap,
  type Tensor,
  type TensorInfo,
  type TypedArray,
  Variable,
} from '@tensorflow/tfjs-core';
import { BackendError } from './errors.ts';
import { describe, type Explanation, Profiles, shares } from './explain.ts';
import { CpuKernels, type HostTensor } from './fallback.ts';
import {
  type ElementType,
  emit,
  external,
  type HostData,
  sameShape,
  sizeOf,
  tracing,
  uniform,
  Value,
} from './graph.ts';
import { type Lowered, type Lowering, Refusal } from './kernels/kernel.ts';
import { reshape } from './ops.ts';
import { type BackendOptions, type ResolvedOptions, resolveOptions } from './options.ts';
import { inputName, modelOf, outputName, type Plan, peakBytes, plan } from './plan.ts';
import { type Program, Programs } from './programs.ts';
import { Repeated, type RepeatedStep, type Results as StepResults } from './repeat.ts';
import { Results } from './results.ts';
import { Runtime } from './runtime.ts';

/** Why a graph ran. */
export type FlushReason = 'read' | 'variable' | 'length' | 'fallback' | 'eager' | 'asked';

/** One flush, for people and tests. */
export interface FlushRecord {
  readonly reason: FlushReason;
  /** The kernel that was called when it happened; empty outside kernels. */
  readonly kernel: string;
  readonly nodes: number;
  readonly inputs: number;
  readonly outputs: number;
  /** Whether the graph was new. */
  readonly compiled: boolean;
  readonly milliseconds: number;
}

/** A tensor's data: one value, two for a complex tensor, none for strings. */
interface Entry {
  readonly dtype: DataType;
  refCount: number;
  values: readonly Value[];
  readonly strings: BackendValues | undefined;
  /** Why it will never have data. */
  failure: BackendError | undefined;
}

type KernelInputs = Readonly<Record<string, TensorInfo | readonly TensorInfo[] | undefined>>;

/**
 * Graphs whose results stay below this run on one thread: waking others costs more. On two cores a step of a small
 * convolutional network (2 MiB) took 2.9 ms alone and 3.6 together, one of a perceptron (10 MiB) 5.3 and 4.9.
 */
const PARALLEL_FROM_BYTES = 1 << 23;
/** Smaller results come to the process's memory at once: losses and metrics are read. */
const STAYS_FROM_BYTES = 4096;
const KEPT_RECORDS = 256;

export class OnnxRuntimeBackend extends KernelBackend {
  readonly options: ResolvedOptions;
  readonly data: DataStorage<Entry>;
  readonly #runtime: Runtime;
  #programs: Programs;
  /** While a step is explained. */
  #profiles: Profiles | undefined;
  #profiled: { readonly program: Program; readonly record: FlushRecord }[] = [];
  readonly #cpu: CpuKernels;
  readonly #results = new Results();
  /** Entries with values that wait for a flush. */
  readonly #live = new Set<Entry>();
  readonly #records: FlushRecord[] = [];
  #flushes = 0;
  #compilations = 0;
  #nodesAtFlush = tracing.nodeCount;

  /** Throws FED_ORT_BINDING when ONNX Runtime can't be loaded here, RangeError or TypeError for an impossible option. */
  constructor(options: BackendOptions = {}) {
    super();
    this.options = resolveOptions(options);
    this.data = new DataStorage(this, engine());
    this.#runtime = new Runtime(this.options);
    this.#programs = new Programs(this.options.maxSessionBytes);
    this.#cpu = new CpuKernels(this.options.warn === false ? undefined : this.options.warn);
  }

  // --- What TensorFlow.js asks of a backend ---

  override write(values: BackendValues, shape: number[], dtype: DataType): DataId {
    const dataId = {};
    const entry =
      shape.length === 0 && dtype === 'float32'
        ? entryOf('float32', uniform((values as Float32Array)[0]!, [], 'float32'))
        : this.#entryOf({ shape, dtype, values }, 1, 'copy');
    this.#adopt(dataId, entry);
    return dataId;
  }

  override move(
    dataId: DataId,
    values: BackendValues,
    shape: number[],
    dtype: DataType,
    refCount: number,
  ): void {
    const tensor = { shape, dtype, values: splitComplex(values, dtype) };
    this.#adopt(dataId, this.#entryOf(tensor, refCount, 'own'));
  }

  /** The array belongs to the tensor: to be read, not written. */
  override readSync(dataId: DataId): BackendValues {
    const entry = this.data.get(dataId);
    const tensor = this.#download(entry, 'read');
    return 'real' in tensor
      ? backend_util.mergeRealAndImagArrays(tensor.real, tensor.imag)
      : (tensor as BackendValues);
  }

  override read(dataId: DataId): Promise<BackendValues> {
    try {
      return Promise.resolve(this.readSync(dataId));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  override refCount(dataId: DataId): number {
    return this.data.has(dataId) ? this.data.get(dataId).refCount : 0;
  }

  override incRef(dataId: DataId): void {
    this.data.get(dataId).refCount++;
  }

  override disposeData(dataId: DataId, force = false): boolean {
    if (!this.data.has(dataId)) return true;
    const entry = this.data.get(dataId);
    entry.refCount--;
    if (!force && entry.refCount > 0) return false;
    this.#live.delete(entry);
    this.data.delete(dataId);
    for (const value of entry.values) this.#release(value);
    return true;
  }

  override numDataIds(): number {
    return this.data.numDataIds();
  }

  override memory(): { unreliable: boolean } {
    return { unreliable: false };
  }

  override floatPrecision(): 16 | 32 {
    return 32;
  }

  override timerAvailable(): boolean {
    return true;
  }

  /** Measures `body` and the flush that it leads to, with what waited before it out of the way. */
  override async time(body: () => void): Promise<BackendTimingInfo> {
    this.flush();
    const start = performance.now();
    body();
    this.flush();
    return { kernelMs: performance.now() - start };
  }

  override dispose(): void {
    this.#live.clear();
    this.#results.clear();
    this.#programs.clear();
    this.#cpu.dispose();
  }

  // --- Kernels ---

  /** Runs a kernel of the table: traces it, or leaves it to JavaScript when it refuses. */
  runKernel(
    kernel: string,
    lowering: Lowering | undefined,
    inputs: KernelInputs,
    attrs: NamedAttrMap | undefined,
  ): TensorInfo | TensorInfo[] {
    this.#startStep(kernel, inputs);
    if (lowering === undefined) return this.runOnCpu(kernel, inputs, attrs, 'it has no ONNX form here');
    const values: Record<string, Value> = {};
    for (const name in inputs) {
      const info = inputs[name];
      if (info == null) continue;
      if (Array.isArray(info)) return this.runOnCpu(kernel, inputs, attrs, 'it has lists of inputs');
      const value = this.valueFor(info as TensorInfo);
      if (value === undefined || value.size === 0) return this.runOnCpu(kernel, inputs, attrs, undefined);
      values[name] = value;
    }
    let lowered: Lowered;
    tracing.kernel = kernel;
    tracing.pieceBytes = this.options.device === 'cpu' ? this.options.pieceBytes : Number.POSITIVE_INFINITY;
    try {
      lowered = lowering(values, attrs ?? {});
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return this.runOnCpu(kernel, inputs, attrs, error.reason);
    } finally {
      tracing.kernel = '';
    }
    const infos =
      lowered instanceof Value ? this.#makeInfo(lowered) : lowered.map((value) => this.#makeInfo(value));
    this.#afterKernel(kernel);
    return infos;
  }

  /** Runs the kernel of the `cpu` backend. `reason` is for the warning; without one there is none. */
  runOnCpu(
    kernel: string,
    inputs: KernelInputs,
    attrs: NamedAttrMap | undefined,
    reason: string | undefined,
  ): TensorInfo | TensorInfo[] {
    this.#cpu.note(kernel, reason);
    const read = ({ dataId, shape, dtype }: TensorInfo): HostTensor => ({
      shape,
      dtype,
      values: this.#download(this.data.get(dataId), 'fallback', kernel),
    });
    if (Array.isArray(inputs)) return this.#finishOnCpu(kernel, inputs.map(read), attrs);
    const hostInputs: Record<string, HostTensor | HostTensor[]> = {};
    for (const [name, info] of Object.entries(inputs)) {
      if (info == null) continue;
      hostInputs[name] = Array.isArray(info) ? info.map(read) : read(info as TensorInfo);
    }
    return this.#finishOnCpu(kernel, hostInputs, attrs);
  }

  #finishOnCpu(kernel: string, inputs: Parameters<CpuKernels['run']>[1], attrs: NamedAttrMap | undefined) {
    const outputs = this.#cpu.run(kernel, inputs, attrs);
    const make = (tensor: HostTensor): TensorInfo => {
      const dataId = {};
      this.#adopt(dataId, this.#entryOf(tensor, 1, 'own'));
      return { dataId, shape: tensor.shape, dtype: tensor.dtype };
    };
    return Array.isArray(outputs) ? outputs.map(make) : make(outputs);
  }

  /** Returns another tensor with the same data: no node, no copy. */
  alias({ dataId, dtype }: TensorInfo, shape: readonly number[]): TensorInfo {
    this.incRef(dataId);
    return { dataId, shape: [...shape], dtype };
  }

  /** Returns what a kernel works with, in the tensor's shape; undefined for complex numbers and strings. */
  valueFor({ dataId, shape }: TensorInfo): Value | undefined {
    const entry = this.data.get(dataId);
    this.#checkAlive(entry);
    return entry.values.length === 1 ? inShape(entry.values[0]!, shape) : undefined;
  }

  /** Returns a complex tensor of two real ones. */
  makeComplex(real: TensorInfo, imag: TensorInfo): TensorInfo {
    const dataId = {};
    const values = [this.valueFor(real)!, this.valueFor(imag)!];
    this.#adopt(dataId, entryOf('complex64', ...values));
    return { dataId, shape: [...real.shape], dtype: 'complex64' };
  }

  /** Returns the real (0) or imaginary (1) part of a complex tensor. */
  partOf({ dataId, shape }: TensorInfo, part: 0 | 1): TensorInfo {
    return this.#makeInfo(inShape(this.data.get(dataId).values[part]!, shape));
  }

  // --- Running ---

  /** Computes all that is pending. A training loop may call it at the end of a step; it never has to. */
  flush(): void {
    this.#flush('asked', '');
  }

  /**
   * Returns `body`, a training step say, as one that stops tracing: when two calls with inputs of some shapes have given
   * the same graph of the same variables, later ones run that graph and nothing else. The body may depend on its inputs
   * and on variables, and on nothing else that changes; one that draws random numbers, or reads on the way, is traced
   * each time, as it would be anyway.
   */
  repeatable<I extends readonly Tensor[], R extends StepResults>(
    body: (...inputs: I) => R,
  ): RepeatedStep<I, R> {
    return new Repeated(
      {
        flush: () => this.#flush('asked', ''),
        flushes: () => this.#flushes,
        valueOf: ({ dataId }) => {
          const { values } = this.data.get(dataId);
          return values.length === 1 ? values[0] : undefined;
        },
        own: ({ dataId }) => {
          const entry = this.data.get(dataId);
          const [value] = entry.values;
          if (value?.source === undefined || !value.shared || 'gpu' in value.source) return;
          entry.values = [external(value.source.host.slice(), value.shape, value.dtype)];
          entry.values[0]!.holders++;
          this.#release(value);
        },
        release: (value) => this.#release(value),
        rerun: (program, externals, outputs) => {
          if (!this.#programs.use(program)) return false;
          this.#flushes++;
          this.#run(program, { externals, outputs });
          return true;
        },
        tensorOf: (value, shape) =>
          engine().makeTensorFromTensorInfo({ ...this.#makeInfo(value), shape: [...shape] }),
      },
      body,
    );
  }

  /**
   * Runs `step` (one training step, say) twice, the second time under ONNX Runtime's profiler, and returns where its time
   * went. Graphs are compiled anew for it, so it takes a while; the step has its usual effects, twice.
   */
  async explain(step: () => unknown): Promise<Explanation> {
    this.flush();
    const programs = this.#programs;
    const profiles = new Profiles();
    this.#profiles = profiles;
    this.#programs = new Programs(this.options.maxSessionBytes);
    try {
      await step();
      this.flush();
      this.#profiled = [];
      const fallbacksBefore = new Map(this.#cpu.calls);
      const start = performance.now();
      await step();
      this.flush();
      const milliseconds = performance.now() - start;
      const profiled = this.#profiled;
      for (const session of new Set(profiled.map(({ program }) => program.session))) session.endProfiling();
      const flushes = profiled.map(({ program, record }) => {
        const times = profiles.lastRun(program.profile!, this.options.device);
        const byOperator = shares(times, 'operator');
        return { ...record, peakBytes: program.peakBytes, byOperator, byKernel: shares(times, 'kernel') };
      });
      const fallbacks: Record<string, number> = {};
      for (const [kernel, calls] of this.#cpu.calls) {
        const more = calls - (fallbacksBefore.get(kernel) ?? 0);
        if (more > 0) fallbacks[kernel] = more;
      }
      const explanation = { flushes, milliseconds, fallbacks };
      return { ...explanation, toString: () => describe(explanation) };
    } finally {
      this.#programs.clear();
      this.#programs = programs;
      this.#profiles = undefined;
      this.#profiled = [];
      profiles.remove();
    }
  }

  /** Flushes so far, the latest last; only some hundred are kept. */
  get flushRecords(): readonly FlushRecord[] {
    return this.#records;
  }

  /** Counts since the backend was made. */
  get counters(): {
    readonly flushes: number;
    readonly compilations: number;
    readonly sessions: number;
    readonly sessionBytes: number;
    readonly pendingTensors: number;
    /** Results that stay on the device. */
    readonly deviceBuffers: number;
    /** Calls that ran in JavaScript, by kernel. */
    readonly fallbacks: ReadonlyMap<string, number>;
  } {
    return {
      flushes: this.#flushes,
      compilations: this.#compilations,
      sessions: this.#programs.count,
      sessionBytes: this.#programs.bytes,
      pendingTensors: this.#live.size,
      deviceBuffers: this.#results.deviceBuffers,
      fallbacks: this.#cpu.calls,
    };
  }

  /** A variable that was assigned in this graph and is read now marks the beginning of the next step. */
  #startStep(kernel: string, inputs: KernelInputs): void {
    if (this.#live.size === 0) return;
    for (const name in inputs) {
      const info = inputs[name];
      if (
        info instanceof Variable &&
        this.data.has(info.dataId) &&
        this.#live.has(this.data.get(info.dataId))
      ) {
        this.#flush('variable', kernel);
        return;
      }
    }
  }

  #afterKernel(kernel: string): void {
    if (this.options.mode === 'eager') this.#flush('eager', kernel);
    else if (tracing.nodeCount - this.#nodesAtFlush > this.options.maxPendingNodes)
      this.#flush('length', kernel);
  }

  #flush(reason: FlushReason, kernel: string): { graph: Plan; program: Program } | undefined {
    this.#nodesAtFlush = tracing.nodeCount;
    tracing.graph++;
    if (this.#live.size === 0) return undefined;
    const wanted = new Set<Value>();
    for (const entry of this.#live) for (const value of entry.values) if (value.pending) wanted.add(value);
    const entries = [...this.#live];
    this.#live.clear();
    if (wanted.size === 0) return undefined;
    const start = performance.now();
    const graph = plan([...wanted]);
    let compiled = false;
    let program = this.#programs.find(graph);
    try {
      if (program === undefined) {
        compiled = true;
        this.#compilations++;
        program = this.#compile(graph, this.options.device === 'webgpu');
        this.#programs.add(program);
      }
      this.#run(program, graph);
      this.#results.settle();
      return { graph, program };
    } catch (cause) {
      const failure = describeFailure(cause, graph, this.options.mode);
      for (const entry of entries) entry.failure = failure;
      throw failure;
    } finally {
      this.#flushes++;
      if (this.#records.length >= KEPT_RECORDS) this.#records.splice(0, KEPT_RECORDS / 2);
      const record = {
        reason,
        kernel,
        nodes: graph.nodes.length,
        inputs: graph.externals.length,
        outputs: graph.outputs.length,
        compiled,
        milliseconds: performance.now() - start,
      };
      this.#records.push(record);
      if (this.#profiles !== undefined && program !== undefined) this.#profiled.push({ program, record });
    }
  }

  /** With `stay`, large results are left on the device. */
  #compile(graph: Plan, stay: boolean): Program {
    const peak = peakBytes(graph);
    const profile = this.#profiles?.next();
    const session = this.#runtime.createSession({
      model: modelOf(graph, this.options.device),
      parallel: peak >= PARALLEL_FROM_BYTES,
      gpuOutputs: graph.outputs.flatMap(({ bytes }, i) =>
        stay && bytes >= STAYS_FROM_BYTES ? [outputName(i)] : [],
      ),
      ...(profile === undefined ? {} : { profile }),
    });
    return {
      key: graph.key,
      hash: graph.hash,
      session,
      outputNames: graph.outputs.map((_, i) => outputName(i)),
      peakBytes: peak,
      profile,
    };
  }

  #run(program: Program, { externals, outputs }: Pick<Plan, 'externals' | 'outputs'>): void {
    const feeds: Record<string, ReturnType<Runtime['tensor']>> = {};
    externals.forEach((value, i) => {
      feeds[inputName(i)] = this.#runtime.tensor(value.source!, value.dtype, value.shape);
    });
    const results = program.session.run(feeds, program.outputNames);
    outputs.forEach((value, i) => {
      const source = this.#runtime.sourceOf(results[program.outputNames[i]!]!);
      this.#results.add(source);
      value.resolve(source);
    });
  }

  // --- Data ---

  #makeInfo(value: Value): TensorInfo {
    const dataId = {};
    const dtype = tensorType(value.dtype);
    const values = [value.size === 0 ? external(emptyArray(dtype), value.shape, dtype) : value];
    this.#adopt(dataId, entryOf(dtype, ...values));
    return { dataId, shape: [...value.shape], dtype };
  }

  #adopt(dataId: DataId, entry: Entry): void {
    this.data.set(dataId, entry);
    for (const value of entry.values) {
      value.holders++;
      if (value.pending) this.#live.add(entry);
    }
  }

  #release(value: Value): void {
    value.holders--;
    if (value.holders > 0) return;
    this.#results.retire(value);
    if (this.#live.size === 0) this.#results.settle();
  }

  #entryOf({ shape, dtype, values }: HostTensor, refCount: number, ownership: 'own' | 'copy'): Entry {
    const host = (data: BackendValues) =>
      external(toHostArray(data, dtype, sizeOf(shape), ownership), shape, tensorElement(dtype));
    const entry = { dtype, refCount, strings: undefined, failure: undefined };
    if (dtype === 'string') return { ...entry, values: [], strings: values as BackendValues };
    if (dtype !== 'complex64') return { ...entry, values: [host(values as BackendValues)] };
    const { real, imag } = values as { real: Float32Array; imag: Float32Array };
    return { ...entry, values: [host(real), host(imag)] };
  }

  #download(entry: Entry, reason: FlushReason, kernel = ''): HostTensor['values'] {
    if (this.#live.has(entry)) this.#flush(reason, kernel);
    this.#checkAlive(entry);
    if (entry.strings !== undefined) return entry.strings;
    const [first, second] = entry.values.map((value) => {
      const data = this.#hostData(value);
      return value.shared ? data.slice() : data;
    });
    if (second === undefined) return first as TypedArray;
    return { real: first as Float32Array, imag: second as Float32Array };
  }

  #hostData(value: Value): HostData {
    const { source } = value;
    if (source === undefined)
      throw new BackendError('FED_ORT_DISPOSED', 'This tensor has no data that could be read.');
    const data = 'gpu' in source ? this.#fetch(value) : source.host;
    this.#results.handOut(data);
    return data;
  }

  /** Through a graph of its own whose result doesn't stay: to ask the buffer for its data would end the process. */
  #fetch(value: Value): HostData {
    const copy = emit('Identity', [value], value.shape, value.dtype);
    const graph = plan([copy]);
    let program = this.#programs.find(graph);
    if (program === undefined) {
      program = this.#compile(graph, false);
      this.#programs.add(program);
    }
    this.#run(program, graph);
    return (copy.source as { host: HostData }).host;
  }

  #checkAlive(entry: Entry): void {
    if (entry.failure !== undefined) throw entry.failure;
  }
}

function entryOf(dtype: DataType, ...values: Value[]): Entry {
  return { dtype, refCount: 1, values, strings: undefined, failure: undefined };
}

function inShape(value: Value, shape: readonly number[]): Value {
  return sameShape(value.shape, shape) ? value : reshape(value, shape);
}

function tensorType(dtype: ElementType): 'float32' | 'int32' | 'bool' {
  if (dtype === 'int64' || dtype === 'float64') {
    throw new TypeError(`A kernel returned ${dtype}, which TensorFlow.js doesn't have.`);
  }
  return dtype;
}

function tensorElement(dtype: DataType): 'float32' | 'int32' | 'bool' {
  return dtype === 'int32' || dtype === 'bool' ? dtype : 'float32';
}

function emptyArray(dtype: 'float32' | 'int32' | 'bool'): HostData {
  return toHostArray([] as unknown as BackendValues, dtype, 0, 'own');
}

/**
 * The kernels may run long after the call, so data that a caller could still change is copied. `null` stands for zeros.
 */
function toHostArray(
  values: BackendValues | null | undefined,
  dtype: DataType,
  size: number,
  ownership: 'own' | 'copy',
): HostData {
  const HostArray = dtype === 'int32' ? Int32Array : dtype === 'bool' ? Uint8Array : Float32Array;
  if (values == null) return new HostArray(size);
  if (ownership === 'own' && values instanceof HostArray) return values;
  return new HostArray(values as TypedArray);
}

function splitComplex(values: BackendValues, dtype: DataType): HostTensor['values'] {
  return dtype === 'complex64' ? backend_util.splitRealAndImagArrays(values as Float32Array) : values;
}

/** Says which kernel failed, as far as ONNX Runtime tells. Eagerly, the error is made inside of the call at fault. */
function describeFailure(cause: unknown, { nodes }: Plan, mode: 'lazy' | 'eager'): BackendError {
  const detail = cause instanceof Error ? cause.message : String(cause);
  const code = cause instanceof BackendError ? cause.code : 'FED_ORT_RUN';
  const kernel = /Name:'\d+:(\w+)'/.exec(detail)?.[1] ?? nodes.at(-1)?.kernel;
  if (mode === 'eager')
    return withLongStack(() => new BackendError(code, `${kernel} failed: ${detail}`, { cause }));
  const hint = "Mode 'eager' shows the call that is at fault.";
  const message = `A graph of ${nodes.length} nodes failed, probably in ${kernel}: ${detail}. ${hint}`;
  return new BackendError(code, message, { cause });
}

/** TensorFlow.js alone takes more frames than a stack has by default. */
function withLongStack<T>(make: () => T): T {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 50;
  try {
    return make();
  } finally {
    Error.stackTraceLimit = limit;
  }
}
