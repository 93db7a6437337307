/** Two graphs have equal keys when, and only when, one compiled graph can serve both. */
import { describe, expect, it } from 'vitest';
import { external, number, type Value } from '../src/graph.ts';
import * as o from '../src/ops.ts';
import { peakBytes, plan } from '../src/plan.ts';

const input = (...values: number[]) => external(Float32Array.from(values), [values.length], 'float32');
const keyOf = (...values: Value[]) => [...plan(values).key];

describe('plan', () => {
  it('other data: the same key', () => {
    expect(keyOf(o.add(input(1, 2), input(3, 4)))).toEqual(keyOf(o.add(input(5, 6), input(7, 8))));
  });

  it('another operator, shape, constant, attribute, wiring or choice of results: another key', () => {
    const [x, y] = [input(1, 2), input(3, 4)];
    const sum = o.add(x, y);
    const keys = [
      keyOf(sum),
      keyOf(o.sub(x, y)),
      keyOf(o.add(x, x)),
      keyOf(o.add(input(1), input(2))),
      keyOf(o.add(x, number(1))),
      keyOf(o.add(x, number(2))),
      keyOf(o.unary('Softmax', o.add(x, y), { axis: 0 })),
      keyOf(o.unary('Softmax', o.add(x, y), { axis: -1 })),
      keyOf(o.mul(sum, x)),
      keyOf(o.mul(sum, x), sum),
      keyOf(sum, o.mul(sum, x)),
    ].map((key) => key.join());
    expect(new Set(keys).size).toBe(keys.length);
  });

  it('nodes come in an order in which each finds its inputs, whatever was asked for first', () => {
    const x = input(1);
    const first = o.add(x, 1);
    const second = o.mul(first, 2);
    const { nodes, externals } = plan([second, first]);
    expect(nodes.map((node) => node.op)).toEqual(['Add', 'Mul']);
    expect(externals).toEqual([x]);
  });

  it('peakBytes: what is alive at one time, results being freed after their last use', () => {
    // Four bytes an element: a and b live together (8), then b and c; a is gone.
    const a = o.add(input(1), 1);
    const b = o.mul(a, 2);
    expect(peakBytes(plan([o.sub(b, 3)]))).toBe(8);
    // With a wanted at the end as well, three live together.
    const again = o.add(input(1), 1);
    expect(peakBytes(plan([o.sub(o.mul(again, 2), 3), again]))).toBe(12);
  });
});
