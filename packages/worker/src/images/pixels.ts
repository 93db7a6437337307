/** Images as flat arrays with a shape, in either of Keras's two layouts. */

export type DataFormat = 'channels_last' | 'channels_first';
/** Float pixels; 'float32' unless the generator's dtype says otherwise. */
export type Floats = Float32Array | Float64Array;
/** What an image may be read from: decoded bytes, or floats. */
export type Pixels = Uint8Array | Floats;

/** One image: [height, width, channels] in channels_last, [channels, height, width] in channels_first; row-major. */
export interface ImageArray<D extends Pixels = Floats> {
  data: D;
  shape: readonly [number, number, number];
}

/** Several images of one shape: [n, …shape]. */
export interface ImageBatch<D extends Pixels = Floats> {
  data: D;
  shape: readonly [number, number, number, number];
}

/** Height, width and channels of a shape, in pixels. */
export interface Size {
  height: number;
  width: number;
  channels: number;
}

export function sizeOf(shape: readonly [number, number, number], format: DataFormat): Size {
  const [a, b, c] = shape;
  return format === 'channels_last'
    ? { height: a, width: b, channels: c }
    : { height: b, width: c, channels: a };
}

/** @throws RangeError when the data's length is not the product of the shape */
export function checkLength(data: ArrayLike<number>, shape: readonly number[], what: string): void {
  const expected = shape.reduce((product, n) => product * n, 1);
  if (data.length !== expected) {
    throw new RangeError(`${what}: shape [${shape.join(', ')}] needs ${expected} values; got ${data.length}`);
  }
}
