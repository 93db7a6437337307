/**
 * Writes ONNX models. A model is a protocol buffer: fields of (number, wire type) followed by a varint, four bytes, or
 * a length and bytes. The field numbers below are those of onnx.proto (IR version 9); nothing else of it is needed.
 */
import type { Attribute, ElementType } from './graph.ts';

/** The standard operator set whose semantics the kernels are written for. */
export const OPSET = 20;
const IR_VERSION = 9;

/** TensorProto.DataType. */
const DATA_TYPE: Readonly<Record<ElementType, number>> = {
  float32: 1,
  int32: 6,
  int64: 7,
  bool: 9,
  float64: 11,
};

export interface TensorType {
  readonly name: string;
  readonly dtype: ElementType;
  readonly shape: readonly number[];
}

export interface ModelNode {
  readonly op: string;
  readonly domain: string;
  readonly attributes: Readonly<Record<string, Attribute>>;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly name: string;
}

export interface Model {
  readonly nodes: readonly ModelNode[];
  readonly initializers: readonly (TensorType & { readonly bytes: Uint8Array })[];
  readonly inputs: readonly TensorType[];
  readonly outputs: readonly TensorType[];
}

/** Returns the bytes of a ModelProto; nodes have to be in an order in which each finds its inputs made. */
export function encodeModel(model: Model): Uint8Array {
  const writer = new Writer();
  writer.int(1, IR_VERSION);
  writer.text(2, 'tributary');
  writer.message(7, () => {
    for (const node of model.nodes) writer.message(1, () => writeNode(writer, node));
    writer.text(2, 'trace');
    for (const tensor of model.initializers) writer.message(5, () => writeTensor(writer, tensor));
    for (const input of model.inputs) writer.message(11, () => writeValueInfo(writer, input));
    for (const output of model.outputs) writer.message(12, () => writeValueInfo(writer, output));
  });
  for (const [domain, version] of [
    ['', OPSET],
    ['com.microsoft', 1],
  ] as const) {
    writer.message(8, () => {
      writer.text(1, domain);
      writer.int(2, version);
    });
  }
  return writer.finish();
}

function writeNode(writer: Writer, node: ModelNode): void {
  for (const input of node.inputs) writer.text(1, input);
  for (const output of node.outputs) writer.text(2, output);
  writer.text(3, node.name);
  writer.text(4, node.op);
  for (const [name, value] of Object.entries(node.attributes)) {
    writer.message(5, () => {
      writer.text(1, name);
      writeAttribute(writer, value);
    });
  }
  if (node.domain !== '') writer.text(7, node.domain);
}

function writeAttribute(writer: Writer, value: Attribute): void {
  if (typeof value === 'number') {
    writer.int(3, value);
    writer.int(20, 2);
  } else if (typeof value === 'string') {
    writer.text(4, value);
    writer.int(20, 3);
  } else if ('float' in value) {
    writer.float(2, value.float);
    writer.int(20, 1);
  } else {
    for (const item of value) writer.int(8, item);
    writer.int(20, 7);
  }
}

function writeTensor(writer: Writer, tensor: TensorType & { readonly bytes: Uint8Array }): void {
  for (const size of tensor.shape) writer.int(1, size);
  writer.int(2, DATA_TYPE[tensor.dtype]);
  writer.text(8, tensor.name);
  writer.bytes(9, tensor.bytes);
}

function writeValueInfo(writer: Writer, { name, dtype, shape }: TensorType): void {
  writer.text(1, name);
  writer.message(2, () => {
    writer.message(1, () => {
      writer.int(1, DATA_TYPE[dtype]);
      writer.message(2, () => {
        for (const size of shape) writer.message(1, () => writer.int(1, size));
      });
    });
  });
}

const VARINT = 0;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;

class Writer {
  #bytes: Uint8Array = new Uint8Array(1 << 14);
  #length = 0;

  /** An integer field; negative numbers are written as 64-bit two's complement. */
  int(field: number, value: number): void {
    this.#varint((field << 3) | VARINT);
    if (value >= 0) this.#varint(value);
    else this.#bigVarint(BigInt.asUintN(64, BigInt(value)));
  }

  float(field: number, value: number): void {
    this.#varint((field << 3) | FIXED32);
    this.#reserve(4);
    new DataView(this.#bytes.buffer).setFloat32(this.#length, value, true);
    this.#length += 4;
  }

  /** Strings here are names and domains: ASCII. */
  text(field: number, value: string): void {
    this.#varint((field << 3) | LENGTH_DELIMITED);
    this.#varint(value.length);
    this.#reserve(value.length);
    for (let i = 0; i < value.length; i++) this.#bytes[this.#length++] = value.charCodeAt(i);
  }

  bytes(field: number, value: Uint8Array): void {
    this.#varint((field << 3) | LENGTH_DELIMITED);
    this.#varint(value.length);
    this.#reserve(value.length);
    this.#bytes.set(value, this.#length);
    this.#length += value.length;
  }

  /** A nested message: its length is known only afterwards, so room for five bytes of it is left in front. */
  message(field: number, body: () => void): void {
    this.#varint((field << 3) | LENGTH_DELIMITED);
    this.#reserve(5);
    const at = this.#length;
    this.#length += 5;
    body();
    let size = this.#length - at - 5;
    for (let i = 0; i < 4; i++) {
      this.#bytes[at + i] = (size & 0x7f) | 0x80;
      size >>>= 7;
    }
    this.#bytes[at + 4] = size;
  }

  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #varint(value: number): void {
    this.#reserve(10);
    let rest = value;
    while (rest > 0x7f) {
      this.#bytes[this.#length++] = (rest % 128) | 0x80;
      rest = Math.floor(rest / 128);
    }
    this.#bytes[this.#length++] = rest;
  }

  #bigVarint(value: bigint): void {
    this.#reserve(10);
    let rest = value;
    while (rest > 0x7fn) {
      this.#bytes[this.#length++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    this.#bytes[this.#length++] = Number(rest);
  }

  #reserve(count: number): void {
    if (this.#length + count <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + count));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
  }
}
