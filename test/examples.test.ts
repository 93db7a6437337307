/** The examples, carried out as their READMEs tell, at reduced size. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { runExample } from '../examples/run-example.ts';

describe('examples', () => {
  test('digits: three sites learn ten digits from the README’s commands', { timeout: 240_000 }, async () => {
    const { commands, evaluation, prediction, rounds } = await runExample('digits');
    expect(commands.length).toBe(7);
    expect(rounds).toBe(3);
    // 15 % of 10 x 120 images; guessing is right once in ten.
    expect(evaluation.examples).toBe(180);
    expect(evaluation.metrics['accuracy']).toBeGreaterThan(0.3);
    const total = prediction.classes.reduce((sum, { probability }) => sum + probability, 0);
    expect(total).toBeGreaterThan(0.3);
    expect(total).toBeLessThanOrEqual(1 + 1e-5);
  });

  test('image-binary: the seed recipe trains over two sites from the README’s commands', {
    timeout: 240_000,
  }, async () => {
    const { commands, evaluation, prediction, rounds } = await runExample('image-binary');
    expect(commands.length).toBe(6);
    expect(rounds).toBe(2);
    // 15 % of 2 x 80 images.
    expect(evaluation.examples).toBe(24);
    expect(Number.isFinite(evaluation.metrics['loss'])).toBe(true);
    expect(prediction.classes.map(({ name }) => name).sort()).toEqual(['3', '8']);
  });

  test('onnxruntime-backend: an ordinary TensorFlow.js model learns, and its step is explained', () => {
    const folder = fileURLToPath(new URL('../examples/onnxruntime-backend/', import.meta.url));
    const printed = execFileSync('npm', ['--silent', 'start'], { cwd: folder, encoding: 'utf8' });
    const last = /epoch 6 {2}loss [\d.]+ {2}accuracy ([\d.]+)/.exec(printed);
    expect(Number(last?.[1])).toBeGreaterThan(0.9);
    expect(printed).toMatch(/Step: [\d.]+ ms, 1 flush\(es\)/);
    expect(printed).toMatch(/x {2}Gemm/);
  });
});
