/**
 * Just enough of an assembler for WebAssembly (with its 128-bit vectors) for the loops of this package that JavaScript runs
 * too slowly: numbers in LEB128, names for the instructions used (WebAssembly Core Specification 2.0, section 5.4), and
 * sections. Code is bytes, and lists of code.
 */

export type Code = number | readonly Code[];
export type ValueType = 'i32' | 'i64' | 'f32' | 'f64' | 'v128';

const TYPES: Readonly<Record<ValueType, number>> = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b };
const vectors = (opcode: number): Code => [0xfd, unsigned(opcode)];
/** A load or store at the address on the stack plus `offset` bytes. Alignment is a hint, and there is none. */
const access = (opcode: Code, offset: number): Code => [opcode, 0, unsigned(offset)];

export const get = (local: number): Code => [0x20, unsigned(local)];
export const set = (local: number): Code => [0x21, unsigned(local)];
/** Takes two values and a condition; leaves the first where it holds, else the second. */
export const select: Code = 0x1b;
export const tee = (local: number): Code => [0x22, unsigned(local)];
/** Runs `body`, which leaves on the stack whether to run it again. */
export const repeat = (body: Code): Code => [0x03, 0x40, body, 0x0d, 0, 0x0b];

export const i32 = {
  const: (value: number): Code => [0x41, signed(BigInt(value))],
  and: 0x71,
  or: 0x72,
  xor: 0x73,
  add: 0x6a,
  sub: 0x6b,
  shl: 0x74,
  shiftRight: 0x76,
  /** Copies the sign into the bits that become free. */
  shiftRightSigned: 0x75,
  lessThan: 0x49,
  lessThanSigned: 0x48,
  wrap: 0xa7,
  /** A signed 16-bit number. */
  load16: (offset: number): Code => access(0x2e, offset),
  store: (offset: number): Code => access(0x36, offset),
  load: (offset: number): Code => access(0x28, offset),
} as const;

export const i64 = {
  const: (value: bigint): Code => [0x42, signed(BigInt.asIntN(64, value))],
  and: 0x83,
  or: 0x84,
  shl: 0x86,
  shiftRight: 0x88,
  load: (offset: number): Code => access(0x29, offset),
  store: (offset: number): Code => access(0x37, offset),
} as const;

export const f32 = {
  load: (offset: number): Code => access(0x2a, offset),
  store: (offset: number): Code => access(0x38, offset),
  fromF64: 0xb6,
} as const;

export const f64 = {
  const: (value: number): Code => [0x44, [...new Uint8Array(Float64Array.of(value).buffer)]],
  load: (offset: number): Code => access(0x2b, offset),
  store: (offset: number): Code => access(0x39, offset),
  floor: 0x9c,
  add: 0xa0,
  mul: 0xa2,
  fromI32: 0xb7,
  fromF32: 0xbb,
} as const;

export const v128 = {
  const: (bytes: Uint8Array): Code => [vectors(12), [...bytes]],
  load: (offset: number): Code => access(vectors(0), offset),
  /** Four unsigned 16-bit numbers as i32x4. */
  load16x4: (offset: number): Code => access(vectors(4), offset),
  store: (offset: number): Code => access(vectors(11), offset),
  anyTrue: vectors(0x53),
  /** Bytes of two vectors: 0 to 15 are the first's, 16 to 31 the second's. */
  shuffle: (...bytes: readonly number[]): Code => [vectors(13), bytes],
} as const;

export const i32x4 = {
  splat: vectors(0x11),
  lane: (lane: number): Code => [vectors(0x1b), lane],
  shl: vectors(0xab),
  add: vectors(0xae),
  sub: vectors(0xb1),
  mul: vectors(0xb5),
  maxUnsigned: vectors(0xb9),
  notLessUnsigned: vectors(0x40),
} as const;

export const i64x2 = {
  extendLow: vectors(0xc9),
  extendHigh: vectors(0xca),
  shiftRight: vectors(0xcd),
  add: vectors(0xce),
} as const;

export const f32x4 = {
  splat: vectors(0x13),
  notEqual: vectors(0x42),
  pmin: vectors(0xea),
  pmax: vectors(0xeb),
  neg: vectors(0xe1),
} as const;

export const f64x2 = {
  splat: vectors(0x14),
  promoteLow: vectors(0x5f),
  add: vectors(0xf0),
  mul: vectors(0xf2),
} as const;

export interface FunctionSource {
  readonly name: string;
  /** The first locals, numbered from 0. */
  readonly parameters: readonly ValueType[];
  readonly result?: ValueType;
  /** The locals after them. */
  readonly locals: readonly ValueType[];
  readonly body: Code;
}

/** Memory that functions share with JavaScript. */
export interface WasmMemory {
  readonly buffer: ArrayBuffer;
}

/** Node's WebAssembly, typed as far as it is used here: its full types come only with a browser's. */
const { Memory, Module, Instance } = (
  globalThis as unknown as {
    WebAssembly: {
      readonly Memory: new (pages: { initial: number; maximum: number }) => WasmMemory;
      readonly Module: new (bytes: Uint8Array) => object;
      readonly Instance: new (
        module: object,
        imports: { env: { memory: WasmMemory } },
      ) => { readonly exports: unknown };
    };
  }
).WebAssembly;

/** Memory of so many bytes at least, which never grows: 64 KiB pages. */
export function createMemory(bytes: number): WasmMemory {
  const pages = Math.ceil(bytes / 65_536);
  return new Memory({ initial: pages, maximum: pages });
}

/** These functions over `memory`, by name: typed by whoever wrote them. */
export function instantiate(functions: readonly FunctionSource[], memory: WasmMemory): unknown {
  return new Instance(new Module(assembleModule(functions)), { env: { memory } }).exports;
}

/** Returns the binary of a module that imports `env.memory` and exports these functions by name. */
function assembleModule(functions: readonly FunctionSource[]): Uint8Array {
  const typeOf = ({ parameters, result }: FunctionSource): Code => [
    0x60,
    list(parameters.map((type) => TYPES[type])),
    list(result === undefined ? [] : [TYPES[result]]),
  ];
  const codeOf = ({ locals, body }: FunctionSource): Code => {
    const code = flatten([list(locals.map((type): Code => [1, TYPES[type]])), body, 0x0b]);
    return [unsigned(code.length), code];
  };
  return Uint8Array.from(
    flatten([
      [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      section(1, functions.map(typeOf)),
      section(2, [[text('env'), text('memory'), 0x02, 0, 1]]),
      section(
        3,
        functions.map((_, i) => unsigned(i)),
      ),
      section(
        7,
        functions.map(({ name }, i): Code => [text(name), 0, unsigned(i)]),
      ),
      section(10, functions.map(codeOf)),
    ]),
  );
}

function section(id: number, items: readonly Code[]): Code {
  const body = flatten(list(items));
  return [id, unsigned(body.length), body];
}

function list(items: readonly Code[]): Code {
  return [unsigned(items.length), items];
}

function text(value: string): Code {
  return list([...Buffer.from(value)]);
}

function flatten(code: Code, bytes: number[] = []): number[] {
  if (typeof code === 'number') bytes.push(code);
  else for (const part of code) flatten(part, bytes);
  return bytes;
}

function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  return [...bytes, rest];
}

function signed(value: bigint): number[] {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>= 7n) {
    const low = Number(rest & 0x7fn);
    // Whole once all that is left is the sign of what is written.
    if (rest < 64n && rest >= -64n) return [...bytes, low];
    bytes.push(low | 0x80);
  }
}
