/**
 * The `webgpu` device on a software adapter: SwiftShader, which Debian's chromium brings along (.ci/run installs it).
 * Nothing here is about speed.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { registerOnnxRuntime } from '../src/index.ts';
import { digitsNetwork, imageGradient } from './nets.ts';

const ADAPTER = '/usr/lib/chromium/vk_swiftshader_icd.json';
const PROGRAM = fileURLToPath(new URL('./webgpu-process.ts', import.meta.url));

interface Report {
  readonly kernels: Readonly<Record<'or' | 'isNaN' | 'product' | 'expected' | 'gradient', number[]>>;
  readonly onTheCpu: string[];
  readonly losses: number[];
  readonly buffers: number[];
  readonly readsAlike: boolean;
  readonly compilations: number;
  readonly fallbacks: string[];
  readonly left: number;
}

async function trainOnWebgpu(adapter: string): Promise<Report> {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--conditions=@tributary/source', '--import', import.meta.resolve('tsx'), PROGRAM],
    { env: { ...process.env, VK_ICD_FILENAMES: adapter } },
  );
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as Report;
}

/** Trained once: a software adapter needs half a minute for its shaders. */
let trained: Promise<Report> | undefined;

function onSwiftShader(): Promise<Report> {
  trained ??= trainOnWebgpu(ADAPTER);
  return trained;
}

describe('webgpu', () => {
  it.skipIf(!existsSync(ADAPTER))(
    `operators that its provider lacks are put together from others, and stay on the device (needs ${ADAPTER})`,
    async () => {
      const { kernels, onTheCpu } = await onSwiftShader();
      expect(onTheCpu).toEqual([]);
      expect(kernels.or).toEqual([0, 1, 1, 1]);
      expect(kernels.isNaN).toEqual([0, 1, 0, 0]);
      expect(kernels.product).toHaveLength(2 * 4 * 5);
      kernels.product.forEach((value, i) => {
        expect(value).toBeCloseTo(kernels.expected[i]!, 5);
      });

      await tf.setBackend('cpu');
      const gradient = imageGradient().dataSync();
      expect(kernels.gradient).toHaveLength(gradient.length);
      kernels.gradient.forEach((value, i) => {
        expect(value).toBeCloseTo(gradient[i]!, 5);
      });
    },
    120_000,
  );

  it.skipIf(!existsSync(ADAPTER))(
    `the digits network trains as on cpu, with its state on the device (needs ${ADAPTER})`,
    async () => {
      const { losses, buffers, readsAlike, compilations, fallbacks, left } = await onSwiftShader();

      registerOnnxRuntime({ threads: 1, warn: false });
      await tf.setBackend('cpu');
      const task = digitsNetwork();
      const model = task.build();
      const [x, y] = [task.x(), task.y()];
      for (const step of [0, 1]) {
        const [loss] = (await model.trainOnBatch(x, y)) as number[];
        expect(Math.abs(losses[step]! - loss!) / loss!).toBeLessThan(1e-4);
      }
      expect(fallbacks).toEqual([]);
      expect(losses.at(-1)).toBeLessThan(losses[0]!);

      // Two weights of more than 4 KiB, each with two states of Adam's.
      expect(new Set(buffers.slice(1))).toEqual(new Set([6]));
      expect(compilations).toBeLessThan(4);
      expect(readsAlike).toBe(true);
      expect(left).toBe(0);
    },
    120_000,
  );

  it('without an adapter: an error that says so, and what to do', async () => {
    await expect(trainOnWebgpu('/nowhere/icd.json')).rejects.toThrow(/FED_ORT_DEVICE/);
    await expect(trainOnWebgpu('/nowhere/icd.json')).rejects.toThrow(/Install a Vulkan driver/);
  });
});
