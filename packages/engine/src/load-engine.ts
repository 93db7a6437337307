/**
 * Finds the fastest engine that works here and says why it was taken and the others were not. The order is a table:
 * GPUs first (TensorFlow on CUDA, WebGPU on a hardware adapter), then native code on the CPU (ONNX Runtime, TensorFlow),
 * WebAssembly, JavaScript.
 */
import { cpu } from './engines/cpu.ts';
import {
  briefly,
  ENGINE_NAMES,
  type EngineFacts,
  type EngineName,
  type EngineSource,
  type ImportModule,
  type Probe,
  type ProbeOptions,
} from './engines/engine-source.ts';
import { onnxruntime } from './engines/onnxruntime.ts';
import { tensorflow } from './engines/tensorflow.ts';
import { wasm } from './engines/wasm.ts';
import { webgpu } from './engines/webgpu.ts';
import { EngineError } from './errors.ts';
import * as tf from './tf.ts';

export interface Engine {
  readonly name: EngineName;
  /** TensorFlow.js core and layers, this engine being the current backend of the process. */
  readonly tf: typeof tf;
  /** For people: "WebAssembly, SIMD, one thread". */
  readonly description: string;
  /** Whether it computes on a GPU. */
  readonly accelerated: boolean;
  /** Why this one, and why not each faster one: full sentences. */
  readonly reason: string;
}

export interface LoadEngineOptions {
  /** @default 'auto', the order of choice */
  readonly prefer?: EngineName | 'auto';
  /** What 'auto' chooses from. @default all */
  readonly among?: readonly EngineName[];
  /** Threads for engines that let one choose: `onnxruntime`. @default the engine's own choice */
  readonly threads?: number;
  /** Let `webgpu` run on a driver that computes on the CPU: for tests. @default false */
  readonly allowSoftwareAdapter?: boolean;
  /** How packages are imported; tests play other machines with it. @default import() */
  readonly importModule?: ImportModule;
}

/** One engine as `tributary doctor` shows it. */
export interface EngineReport {
  readonly name: EngineName;
  readonly state: 'ready' | 'absent' | 'failed';
  /** What it is, or why it can't be used: a phrase. */
  readonly detail: string;
  /** What was measured; empty when it didn't load. */
  readonly facts: EngineFacts;
  readonly accelerated: boolean;
  /** What to install to have it; there when it is missing. */
  readonly install?: string;
  /** Whether 'auto' takes it here. */
  readonly chosen: boolean;
}

const SOURCES: readonly EngineSource[] = [tensorflow, webgpu, onnxruntime, wasm, cpu];

/** Places in the order of choice. An engine with two places waits for a GPU in the first. */
const ORDER: readonly { readonly name: EngineName; readonly gpuOnly: boolean }[] = [
  { name: 'tensorflow', gpuOnly: true },
  { name: 'webgpu', gpuOnly: false },
  { name: 'onnxruntime', gpuOnly: false },
  { name: 'tensorflow', gpuOnly: false },
  { name: 'wasm', gpuOnly: false },
  { name: 'cpu', gpuOnly: false },
];

/**
 * Returns the chosen engine, loaded and set as the TensorFlow.js backend of this process.
 *
 * Throws FED_ENGINE_UNKNOWN for a name that isn't an engine, FED_ENGINE_UNAVAILABLE when the preferred one can't run
 * here (the message says what to install), FED_ENGINE_DUPLICATE_CORE when the installation mixes copies of tfjs-core.
 */
export async function loadEngine(options: LoadEngineOptions = {}): Promise<Engine> {
  const prefer = options.prefer ?? 'auto';
  if (prefer === 'auto') return await chooseEngine(probeOptions(options), options.among ?? ENGINE_NAMES);
  const source = SOURCES.find((candidate) => candidate.name === prefer);
  if (source === undefined) {
    throw new EngineError(
      'FED_ENGINE_UNKNOWN',
      prefer,
      `There is no engine "${String(prefer)}". The engines are ${ENGINE_NAMES.join(', ')}, and auto chooses among them.`,
    );
  }
  const probe = await probeSource(source, probeOptions(options));
  if (probe.state !== 'ready') {
    throw new EngineError(
      'FED_ENGINE_UNAVAILABLE',
      prefer,
      `The engine "${prefer}" can't run here: ${probe.reason}.${probe.install === undefined ? '' : ` To have it: ${probe.install}.`}`,
    );
  }
  return await finish(source.name, probe, `${source.name} was asked for: ${probe.description}.`);
}

/**
 * Returns a report on every engine in the order of choice, each by trying to load it, and leaves the backend that was
 * current before (if any) current again. Nothing thrown: what fails is reported.
 */
export async function inspectEngines(
  options: Omit<LoadEngineOptions, 'prefer'> = {},
): Promise<EngineReport[]> {
  const before = tf.engine().backendName as string | undefined;
  const probes = new Map<EngineName, Probe>();
  for (const source of SOURCES) {
    try {
      probes.set(source.name, await probeSource(source, probeOptions(options)));
    } catch (error) {
      probes.set(source.name, { state: 'failed', reason: briefly(error) });
    }
  }
  if (before !== undefined) await tf.setBackend(before);
  const chosen = ORDER.find(({ name, gpuOnly }) => isTaken(probes.get(name), gpuOnly))?.name;
  return SOURCES.map(({ name }) => reportOf(name, probes.get(name)!, name === chosen));
}

async function chooseEngine(options: ProbeOptions, among: readonly EngineName[]): Promise<Engine> {
  const probes = new Map<EngineName, Probe>();
  for (const { name, gpuOnly } of ORDER) {
    if (!among.includes(name)) continue;
    const source = SOURCES.find((candidate) => candidate.name === name)!;
    const probe = probes.get(name) ?? (await probeSource(source, options));
    probes.set(name, probe);
    if (isTaken(probe, gpuOnly) && probe.state === 'ready') {
      return await finish(name, probe, explain(name, probe.description, probes));
    }
  }
  throw new EngineError(
    'FED_ENGINE_UNAVAILABLE',
    'auto',
    `No engine ${among.length < ENGINE_NAMES.length ? `of ${among.join(', ')} ` : ''}works here. ${[...probes].map(([name, probe]) => rejection(name, probe)).join(' ')}`,
  );
}

async function probeSource(source: EngineSource, options: ProbeOptions): Promise<Probe> {
  try {
    return await source.probe(options);
  } catch (error) {
    if (error instanceof EngineError) throw error;
    return { state: 'failed', reason: briefly(error) };
  }
}

function probeOptions(options: LoadEngineOptions): ProbeOptions {
  return {
    importModule: options.importModule ?? ((specifier) => import(specifier)),
    allowSoftwareAdapter: options.allowSoftwareAdapter ?? false,
    threads: options.threads,
  };
}

function isTaken(probe: Probe | undefined, gpuOnly: boolean): boolean {
  return probe?.state === 'ready' && (!gpuOnly || probe.accelerated);
}

/** Probing later candidates may have made another backend current. */
async function finish(
  name: EngineName,
  probe: Extract<Probe, { state: 'ready' }>,
  reason: string,
): Promise<Engine> {
  await tf.setBackend(probe.backend);
  return { name, tf, description: probe.description, accelerated: probe.accelerated, reason };
}

function explain(name: EngineName, description: string, probes: ReadonlyMap<EngineName, Probe>): string {
  const others = [...probes].filter(([other]) => other !== name);
  const rejected = others.map(([other, probe]) => rejection(other, probe));
  return [`${name} was chosen: ${description}.`, ...rejected].join(' ');
}

function rejection(name: EngineName, probe: Probe): string {
  if (probe.state === 'ready') return `${name} has no GPU here (${probe.description}).`;
  return `${name} was passed over: ${probe.reason}.`;
}

function reportOf(name: EngineName, probe: Probe, chosen: boolean): EngineReport {
  if (probe.state === 'ready') {
    const { description, facts, accelerated } = probe;
    return { name, state: 'ready', detail: description, facts, accelerated, chosen };
  }
  const report = { name, state: probe.state, detail: probe.reason, facts: {}, accelerated: false, chosen };
  return probe.install === undefined ? report : { ...report, install: probe.install };
}
