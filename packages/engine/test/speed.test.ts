import { expect, test } from 'vitest';
import { loadEngine, measureSpeed, tf } from '../src/index.ts';

test('measureSpeed: a figure in the range of machines, and no tensor left behind', async () => {
  await loadEngine({ prefer: 'cpu' });
  const before = tf.memory().numTensors;
  const { gigaflops, size, products } = await measureSpeed(0.05);
  expect(gigaflops).toBeGreaterThan(0.001);
  expect(gigaflops).toBeLessThan(1e6);
  expect(size).toBeGreaterThanOrEqual(128);
  expect(products).toBeGreaterThan(0);
  expect(tf.memory().numTensors).toBe(before);
});
