/**
 * Just enough of a WebAssembly assembler to write one module by hand: sections, LEB128 numbers, and names for the
 * instructions used. Code is a flat list of bytes; nested lists are flattened, so helpers compose.
 */

export type Code = readonly (number | Code)[];

const OPCODES = {
  loop: 0x03,
  if: 0x04,
  else: 0x05,
  end: 0x0b,
  brIf: 0x0d,
} as const;
const VOID_BLOCK = 0x40;
const I32 = 0x7f;
const F32 = 0x7d;
const V128 = 0x7b;
const SIMD = 0xfd;
const LOG2_ALIGN_4 = 2;

export const get = (local: number): Code => [0x20, ...unsigned(local)];
export const set = (local: number): Code => [0x21, ...unsigned(local)];
export const tee = (local: number): Code => [0x22, ...unsigned(local)];
export const i32 = (value: number): Code => [0x41, ...signed(value)];
export const add: Code = [0x6a];
export const sub: Code = [0x6b];
export const or: Code = [0x72];
export const shiftRight: Code = [0x76];
export const isZero: Code = [0x45];
export const lessThan: Code = [0x48];
export const select: Code = [0x1b];
export const loadI32 = (offset = 0): Code => [0x28, LOG2_ALIGN_4, ...unsigned(offset)];
export const loadF32 = (offset = 0): Code => [0x2a, LOG2_ALIGN_4, ...unsigned(offset)];
export const storeF32 = (offset = 0): Code => [0x38, LOG2_ALIGN_4, ...unsigned(offset)];
export const addF32: Code = [0x92];

export const loadVector = (offset = 0): Code => [SIMD, 0x00, LOG2_ALIGN_4, ...unsigned(offset)];
export const loadSplat = (offset = 0): Code => [SIMD, 0x09, LOG2_ALIGN_4, ...unsigned(offset)];
export const storeVector = (offset = 0): Code => [SIMD, 0x0b, LOG2_ALIGN_4, ...unsigned(offset)];
export const zeroVector: Code = [SIMD, 0x0c, ...new Array<number>(16).fill(0)];
export const addVector: Code = [SIMD, 0xe4, 0x01];
export const mulVector: Code = [SIMD, 0xe6, 0x01];

/** `local += value` */
export const advance = (local: number, value: Code): Code => [get(local), value, add, set(local)];

/** Runs `body` while `local`, an i32 above zero, counts down to zero. */
export const countDown = (local: number, body: Code): Code => [
  [OPCODES.loop, VOID_BLOCK],
  body,
  [get(local), i32(1), sub, tee(local), OPCODES.brIf, 0],
  [OPCODES.end],
];

/** Takes the condition from the stack. */
export const when = (then: Code, otherwise: Code): Code => [
  [OPCODES.if, VOID_BLOCK],
  then,
  [OPCODES.else],
  otherwise,
  [OPCODES.end],
];

/** Takes the condition from the stack and leaves an f32: `then`'s, or zero. */
export const orZeroF32 = (then: Code): Code => [
  [OPCODES.if, F32],
  then,
  [OPCODES.else, 0x43, 0, 0, 0, 0],
  [OPCODES.end],
];

export interface FunctionSource {
  readonly exportName: string;
  /** i32 parameters: locals 0 … parameters - 1. */
  readonly parameters: number;
  /** Further i32 locals, then v128 locals, numbered after the parameters. */
  readonly i32Locals: number;
  readonly vectorLocals: number;
  readonly body: Code;
}

/** Returns the binary of a module that imports `env.memory` and exports one function. */
export function assembleModule(source: FunctionSource): Uint8Array<ArrayBuffer> {
  const locals = vector([
    [unsigned(source.i32Locals), I32],
    [unsigned(source.vectorLocals), V128],
  ]);
  const code = flatten([locals, source.body, OPCODES.end]);
  const parameters = new Array<Code>(source.parameters).fill([I32]);
  return Uint8Array.from(
    flatten([
      [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      section(1, [[0x60, vector(parameters), vector([])]]),
      section(2, [[text('env'), text('memory'), 0x02, 0x00, 0x01]]),
      section(3, [[0]]),
      section(7, [[text(source.exportName), 0x00, 0]]),
      section(10, [[unsigned(code.length), code]]),
    ]),
  );
}

function section(id: number, items: readonly Code[]): Code {
  const body = flatten(vector(items));
  return [id, unsigned(body.length), body];
}

function vector(items: readonly Code[]): Code {
  return [unsigned(items.length), items];
}

function text(value: string): Code {
  return vector([...Buffer.from(value)].map((byte) => [byte]));
}

function flatten(code: Code): number[] {
  const bytes: number[] = [];
  for (const part of code) {
    if (typeof part === 'number') bytes.push(part);
    else for (const byte of flatten(part)) bytes.push(byte);
  }
  return bytes;
}

function unsigned(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  do {
    const low = rest & 0x7f;
    rest >>>= 7;
    bytes.push(rest === 0 ? low : low | 0x80);
  } while (rest !== 0);
  return bytes;
}

function signed(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (;;) {
    const low = rest & 0x7f;
    rest >>= 7;
    const done = (rest === 0 && (low & 0x40) === 0) || (rest === -1 && (low & 0x40) !== 0);
    bytes.push(done ? low : low | 0x80);
    if (done) return bytes;
  }
}
