/** The backend's own promises: data, sessions, JavaScript kernels, modes, options and errors. */
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it, vi } from 'vitest';
import {
  BACKEND_ERROR_CODES,
  BackendError,
  type BackendOptions,
  type OnnxRuntimeBackend,
  registerOnnxRuntime,
} from '../src/index.ts';

async function start(options: BackendOptions = {}): Promise<OnnxRuntimeBackend> {
  registerOnnxRuntime({ threads: 1, ...options });
  await tf.setBackend('onnxruntime');
  return tf.backend() as OnnxRuntimeBackend;
}

describe('data', () => {
  it('a caller may reuse its array once tensor() has returned', async () => {
    await start();
    const array = Float32Array.of(1, 2, 3);
    const doubled = tf.mul(tf.tensor1d(array), 2);
    array.fill(0);
    expect([...doubled.dataSync()]).toEqual([2, 4, 6]);
  });

  it('views share data and keep it alive', async () => {
    const backend = await start();
    const x = tf.tensor2d([1, 2, 3, 4], [2, 2]);
    const before = backend.numDataIds();
    const flat = tf.reshape(x, [4]);
    expect(backend.numDataIds()).toBe(before);
    x.dispose();
    expect([...tf.add(flat, 1).dataSync()]).toEqual([2, 3, 4, 5]);
  });

  it('what was read keeps its numbers, though its tensor is gone', async () => {
    const backend = await start();
    const first = tf.tidy(() => tf.mul(tf.tensor1d([1, 2, 3]), 2).dataSync());
    for (let i = 0; i < 5; i++) tf.tidy(() => void tf.mul(tf.tensor1d([7, 8, 9]), i).dataSync());
    expect([...first]).toEqual([2, 4, 6]);
    backend.flush();
  });

  it('a part of a tensor and a view keep their numbers when the whole is gone', async () => {
    const backend = await start();
    const whole = tf.add(tf.tensor2d([1, 2, 3, 4], [2, 2]), 0);
    backend.flush();
    const part = tf.slice(whole, [1, 0], [1, 2]);
    const view = tf.reshape(tf.add(whole, 1), [4]);
    whole.dispose();
    for (let i = 0; i < 5; i++) tf.tidy(() => void tf.add(tf.tensor2d([9, 9, 9, 9], [2, 2]), i).dataSync());
    expect([...part.dataSync()]).toEqual([3, 4]);
    expect([...view.dataSync()]).toEqual([2, 3, 4, 5]);
  });

  it('the memory of a large result is given back when its tensor is gone, without the collector', async () => {
    await start();
    const weights = tf.variable(tf.zeros([1 << 20]));
    const step = () => tf.tidy(() => void weights.assign(tf.add(weights, 1)));
    for (let i = 0; i < 3; i++) step();
    weights.dataSync();
    const before = process.memoryUsage().arrayBuffers;
    for (let i = 0; i < 40; i++) step();
    (tf.backend() as OnnxRuntimeBackend).flush();
    expect((process.memoryUsage().arrayBuffers - before) / 2 ** 20).toBeLessThan(4 * 4);
    expect(weights.dataSync()[7]).toBe(43);
    weights.dispose();
  });

  it('but not what was read, and not what another tensor was made of', async () => {
    await start();
    const large = () => {
      const x = tf.add(tf.zeros([1, 1 << 18]), 5);
      tf.backend().readSync(tf.sum(x).dataId); // computed, but not read
      return x;
    };
    const read = large();
    const numbers = read.dataSync();
    read.dispose();
    const first = large();
    const column = tf.transpose(first);
    first.dispose();
    const row = tf.transpose(column); // the first one's data, which nobody holds but the graph
    column.dispose();
    tf.add(row, 1).dataSync();
    expect(numbers[3]).toBe(5);
    expect(row.dataSync()[3]).toBe(5);
  });

  it('real and imaginary parts keep their numbers when the tensors that they came from are gone', async () => {
    const backend = await start();
    const real = tf.add(tf.tensor1d([1, 2]), 0);
    backend.flush();
    const complex = tf.complex(real, tf.tensor1d([3, 4]));
    real.dispose();
    for (let i = 0; i < 5; i++) tf.tidy(() => void tf.add(tf.tensor1d([9, 9]), i).dataSync());
    expect([...tf.real(complex).dataSync()]).toEqual([1, 2]);
  });

  it('whoever writes into what was read changes no other tensor', async () => {
    await start();
    const reads = [
      () => tf.scalar(2).dataSync(),
      () => tf.zeros([3]).dataSync(),
      () => tf.slice(tf.tensor1d([1, 2, 3]), 1, 2).dataSync(),
    ];
    for (const read of reads) {
      const before = [...read()];
      read().fill(9);
      expect([...read()]).toEqual(before);
    }
    const whole = tf.tensor1d([1, 2, 3]);
    tf.slice(whole, 1, 2).dataSync().fill(9);
    expect([...whole.dataSync()]).toEqual([1, 2, 3]);
  });

  it('equal numbers are one input of a graph, 0 and -0 two', async () => {
    const backend = await start();
    const x = tf.tensor1d([1, 2]);
    const scaled = tf.add(tf.mul(x, 0.5), tf.mul(tf.neg(x), 0.5));
    expect([...scaled.dataSync()]).toEqual([0, 0]);
    expect(backend.flushRecords.at(-1)).toMatchObject({ inputs: 2 });
    expect([...tf.div(1, tf.concat([tf.mul(x, 0), tf.mul(x, -0)])).dataSync()]).toEqual(
      [0, 0, -0, -0].map((zero) => 1 / zero),
    );
  });

  it('what nobody holds is not computed', async () => {
    const backend = await start();
    const x = tf.tensor1d([1, 2]);
    tf.tidy(() => {
      tf.exp(x);
    });
    const kept = tf.neg(x);
    backend.flush();
    expect(backend.flushRecords.at(-1)).toMatchObject({ nodes: 1, outputs: 1 });
    expect([...kept.dataSync()]).toEqual([-1, -2]);
  });

  it.each([
    ['scalars', () => tf.add(tf.scalar(1), tf.scalar(2)), [3]],
    ['empty tensors', () => tf.add(tf.tensor1d([]), 1), []],
    ['an empty part of a pending tensor', () => tf.slice(tf.neg(tf.tensor1d([1, 2])), 1, 0), []],
    ['sums of nothing', () => tf.sum(tf.tensor2d([], [2, 0]), 1), [0, 0]],
    [
      'truth values',
      () => tf.logicalAnd(tf.tensor1d([true, false], 'bool'), tf.tensor1d([true, true], 'bool')),
      [1, 0],
    ],
    [
      'integers that wrap no sign',
      () => tf.floorDiv(tf.tensor1d([-7, 7], 'int32'), tf.scalar(2, 'int32')),
      [-4, 3],
    ],
  ])('%s', async (_, compute, expected) => {
    await start({ warn: false });
    expect([...compute().dataSync()]).toEqual(expected);
  });

  it('complex tensors and strings', async () => {
    await start({ warn: false });
    const z = tf.complex(tf.tensor1d([1, 2]), tf.neg(tf.tensor1d([3, 4])));
    expect([...tf.imag(tf.mul(z, z)).dataSync()]).toEqual([-6, -16]); // (1 − 3i)² = −8 − 6i, (2 − 4i)² = −12 − 16i
    expect(tf.concat([tf.tensor1d(['a']), tf.tensor1d(['b'])]).dataSync()).toEqual(['a', 'b']);
  });
});

describe('sessions', () => {
  it('equal graphs share one; other numbers are not another graph', async () => {
    const backend = await start();
    for (const factor of [1, 2, 3]) tf.mul(tf.tensor1d([factor, factor]), tf.scalar(factor)).dataSync();
    expect(backend.counters).toMatchObject({ flushes: 3, compilations: 1, sessions: 1 });
    tf.mul(tf.tensor1d([1]), tf.scalar(1)).dataSync();
    expect(backend.counters).toMatchObject({ compilations: 2, sessions: 2 });
  });

  it('are disposed of, the oldest first, when they would hold more than allowed', async () => {
    const MiB = 2 ** 20;
    const backend = await start({ maxSessionBytes: 5 * MiB });
    // One result of n elements is 4n bytes, beside 1 MiB for the session itself.
    const run = (elements: number) => tf.neg(tf.ones([elements])).dataSync();
    run(MiB / 4);
    run(MiB / 2);
    expect(backend.counters).toMatchObject({ sessions: 2, sessionBytes: 5 * MiB });
    run(MiB / 4);
    run(MiB);
    expect(backend.counters).toMatchObject({ sessions: 1, sessionBytes: 5 * MiB, compilations: 3 });
    run(4 * MiB);
    expect(backend.counters).toMatchObject({ sessions: 1, sessionBytes: 17 * MiB });
  });
});

describe('kernels in JavaScript', () => {
  it('are counted, and named once', async () => {
    const warn = vi.fn();
    const backend = await start({ warn });
    for (let i = 0; i < 3; i++) tf.unique(tf.tensor1d([1, 1, 2])).values.dataSync();
    expect(backend.counters.fallbacks.get('Unique')).toBe(3);
    expect(warn).toHaveBeenCalledTimes(1);
    expect(warn.mock.calls[0]![0]).toMatch(/Unique runs in JavaScript/);
  });

  it('run what they need first, and say so', async () => {
    const backend = await start({ warn: false });
    const { values } = tf.unique(tf.neg(tf.tensor1d([1, 1, 2])));
    expect([...values.dataSync()]).toEqual([-1, -2]);
    expect(backend.flushRecords[0]).toMatchObject({ reason: 'fallback', kernel: 'Unique' });
  });
});

describe('errors', () => {
  const outOfRange = () => tf.gather(tf.tensor1d([1, 2]), tf.tensor1d([5], 'int32'));

  it('lazily: come at the read, name the kernel, and do not stop later work', async () => {
    await start();
    const bad = outOfRange();
    expect(() => bad.dataSync()).toThrow(/GatherV2/);
    expect(() => tf.neg(bad)).toThrow(BackendError);
    expect([...tf.neg(tf.tensor1d([1])).dataSync()]).toEqual([-1]);
  });

  it('eagerly: come at the call, whose stack they carry', async () => {
    await start({ mode: 'eager' });
    let error: BackendError | undefined;
    try {
      outOfRange();
    } catch (caught) {
      error = caught as BackendError;
    }
    expect(error?.code).toBe('FED_ORT_RUN');
    expect(error?.stack).toContain('outOfRange');
  });

  it('a wrong shape is found at the call in either mode', async () => {
    await start();
    expect(() => tf.add(tf.ones([2]), tf.ones([3]))).toThrow(/2 and 3/);
    expect(() => tf.matMul(tf.ones([2, 3]), tf.ones([2, 3]))).toThrow(/inner shapes \(3\) and \(2\)/);
  });

  it.each([
    [{ threads: 0 }, RangeError, /threads is a whole number from 1, not 0/],
    [{ maxPendingNodes: 1.5 }, RangeError, /maxPendingNodes/],
    [{ maxSessionBytes: -1 }, RangeError, /maxSessionBytes/],
    [{ device: 'tpu' }, TypeError, /device is one of cpu, webgpu, cuda, not "tpu"/],
    [{ mode: 'fast' }, TypeError, /mode is one of lazy, eager/],
  ])('options %o are refused', async (options, type, message) => {
    registerOnnxRuntime(options as BackendOptions, 'impossible');
    const { OnnxRuntimeBackend } = await import('../src/index.ts');
    expect(() => new OnnxRuntimeBackend(options as BackendOptions)).toThrow(type);
    expect(() => new OnnxRuntimeBackend(options as BackendOptions)).toThrow(message);
    tf.removeBackend('impossible');
  });

  it('codes are distinct and of one form', () => {
    expect(new Set(BACKEND_ERROR_CODES).size).toBe(BACKEND_ERROR_CODES.length);
    for (const code of BACKEND_ERROR_CODES) expect(code).toMatch(/^FED_ORT_[A-Z]+$/);
  });
});
