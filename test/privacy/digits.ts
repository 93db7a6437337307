/** Real handwritten digits as numbers: 14x14, from 0 (black) to 1, each the mean of 2x2 pixels. */
import { fileURLToPath } from 'node:url';
import { openDigits } from 'tributary/digits';

export const SIDE = 14;
export const PIXELS = SIDE * SIDE;
export const CLASSES = 10;

export interface Digit {
  readonly pixels: Float64Array;
  readonly label: number;
}

/** `count` digits of all classes in turn, beginning with sample `first` of each; the same call gives the same digits. */
export async function readDigits(count: number, first = 0): Promise<Digit[]> {
  const digits = await openDigits([fileURLToPath(new URL('../../', import.meta.url))]);
  return Array.from({ length: count }, (_, i) => {
    const label = i % CLASSES;
    return { pixels: shrink(digits.pixels(label, first + Math.floor(i / CLASSES))), label };
  });
}

function shrink(bytes: Uint8Array): Float64Array {
  const width = 2 * SIDE;
  return Float64Array.from({ length: PIXELS }, (_, i) => {
    const at = 2 * Math.floor(i / SIDE) * width + 2 * (i % SIDE);
    return (bytes[at]! + bytes[at + 1]! + bytes[at + width]! + bytes[at + width + 1]!) / (4 * 255);
  });
}
