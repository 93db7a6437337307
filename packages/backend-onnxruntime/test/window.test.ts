/** The index tables say the same as the definition of a window, taken literally. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Value } from '../src/graph.ts';
import { tablesOf, type Window } from '../src/window.ts';

const dimension = fc
  .record({
    inSize: fc.integer({ min: 1, max: 7 }),
    kernel: fc.integer({ min: 1, max: 4 }),
    stride: fc.integer({ min: 1, max: 3 }),
    dilation: fc.integer({ min: 1, max: 2 }),
    before: fc.integer({ min: 0, max: 3 }),
    after: fc.integer({ min: 0, max: 3 }),
  })
  .map((d) => ({
    ...d,
    outSize: Math.floor((d.inSize + d.before + d.after - (d.kernel - 1) * d.dilation - 1) / d.stride) + 1,
  }))
  .filter((d) => d.outSize > 0);

const windows = fc.array(dimension, { minLength: 1, maxLength: 2 }).map((dimensions): Window => {
  const of = (name: keyof (typeof dimensions)[number]) => dimensions.map((d) => d[name]);
  return {
    inSize: of('inSize'),
    outSize: of('outSize'),
    kernel: of('kernel'),
    stride: of('stride'),
    dilation: of('dilation'),
    before: of('before'),
  };
});

const indicesOf = (value: Value) => [...((value.source as { host: Int32Array }).host as Int32Array)];

describe('index tables', () => {
  it('patches: each output pixel and tap takes the input pixel below it, or the one past the last', () => {
    fc.assert(
      fc.property(windows, (window) => {
        const tables = tablesOf(window);
        expect(indicesOf(tables.patches.indices)).toEqual(literally(window));
      }),
    );
  });

  it('classes and order: every (input pixel, tap) is found backwards where it is forwards, in each image', () => {
    fc.assert(
      fc.property(windows, fc.integer({ min: 1, max: 3 }), (window, batch) => {
        const tables = tablesOf(window);
        const forwards = new Set<string>();
        literally(window).forEach((pixel, i) => {
          if (pixel === tables.inPixels) return;
          for (let image = 0; image < batch; image++)
            forwards.add(`${image} ${pixel} ${i % tables.taps} ${Math.floor(i / tables.taps)}`);
        });
        const backwards = new Set<string>();
        const order = indicesOf(tables.order(batch).indices);
        let start = 0;
        for (const { taps, pixels, table } of tables.classes) {
          const reached = indicesOf(table.indices);
          for (let row = 0; row < batch * pixels; row++) {
            const place = order.indexOf(start + row);
            const [image, pixel] = [Math.floor(place / tables.inPixels), place % tables.inPixels];
            taps.forEach((tap, j) => {
              const out = reached[(row % pixels) * taps.length + j]!;
              if (out < tables.outPixels) backwards.add(`${image} ${pixel} ${tap} ${out}`);
            });
          }
          start += batch * pixels;
        }
        expect(backwards).toEqual(forwards);
      }),
    );
  });

  it('hits: each place of taps × output pixels that is inside goes to its input pixel once', () => {
    fc.assert(
      fc.property(windows, (window) => {
        const tables = tablesOf(window);
        const places = tables.hits
          .flatMap((table) => indicesOf(table.indices))
          .filter((place) => place < tables.reach.length);
        expect(new Set(places).size).toBe(places.length);
        expect(places.length).toBe(literally(window).filter((pixel) => pixel < tables.inPixels).length);
      }),
    );
  });
});

/** By output pixel and tap. */
function literally({ inSize, outSize, kernel, stride, dilation, before }: Window): number[] {
  const inPixels = inSize.reduce((a, b) => a * b, 1);
  return grid(outSize).flatMap((out) =>
    grid(kernel).map((tap) => {
      const place = out.map((at, d) => at * stride[d]! + tap[d]! * dilation[d]! - before[d]!);
      const inside = place.every((at, d) => at >= 0 && at < inSize[d]!);
      return inside ? place.reduce((pixel, at, d) => pixel * inSize[d]! + at, 0) : inPixels;
    }),
  );
}

function grid(size: readonly number[]): number[][] {
  const [first, ...rest] = size;
  if (first === undefined) return [[]];
  return Array.from({ length: first }, (_, i) => grid(rest).map((place) => [i, ...place])).flat();
}
