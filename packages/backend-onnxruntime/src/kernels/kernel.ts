/**
 * What a kernel is here: a pure function from values and attributes to values. It sees shapes and types, never data.
 * What it can't express it refuses, with the reason, and the backend runs the `cpu` kernel instead.
 */
import type { ElementType, Value } from '../graph.ts';

export type Lowered = Value | readonly Value[];

/** Parameters are bivariant, so that each kernel can name the inputs and attributes that it expects. */
export type Lowering = {
  bivariant(inputs: object, attributes: object): Lowered;
}['bivariant'];

export type KernelTable = Readonly<Record<string, Lowering>>;

export interface Unary {
  readonly x: Value;
}

export interface Binary {
  readonly a: Value;
  readonly b: Value;
}

/** Thrown by a kernel that leaves its work to the `cpu` backend. */
export class Refusal {
  readonly reason: string;

  constructor(reason: string) {
    this.reason = reason;
  }
}

export function refuse(reason: string): never {
  throw new Refusal(reason);
}

/** Refuses unless all values have one of the types. */
export function accept(types: readonly ElementType[], ...values: readonly Value[]): void {
  for (const { dtype } of values) if (!types.includes(dtype)) refuse(`${dtype} input`);
}

export const FLOAT: readonly ElementType[] = ['float32'];
export const NUMERIC: readonly ElementType[] = ['float32', 'int32'];
