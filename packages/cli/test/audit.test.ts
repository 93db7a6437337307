/** `tributary audit`: the mechanism's canary, and what is read from one update of models of different kinds. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { resolveFederation } from '@tributary/coordinator';
import { loadEngine, tf } from '@tributary/engine';
import { artifactFromBuilder, type ModelBuilder } from '@tributary/models';
import { PNG } from 'pngjs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { exportModel } from '../src/commands/export.ts';
import { run } from './support.ts';

const dir = mkdtempSync(join(tmpdir(), 'tributary-audit-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

describe('audit mechanism', () => {
  test('a sound mechanism is not refuted, and the bound is a good part of the claim', async () => {
    const { code, out } = await run(dir, 'audit', 'mechanism', '--json');
    expect(code).toBe(0);
    const report = JSON.parse(out) as { epsilonLowerBound: number };
    // The exact epsilon of noise multiplier 1 at delta 1e-5 (Balle and Wang 2018).
    expect(report).toMatchObject({ type: 'mechanism-audit', verdict: 'not-refuted', trials: 100_000 });
    expect(report).toHaveProperty('claimedEpsilon', expect.closeTo(4.3771780957, 6));
    expect(report.epsilonLowerBound).toBeGreaterThan(0.3 * 4.377);
    expect(report.epsilonLowerBound).toBeLessThan(4.377);
  });

  test('a claim that its noise does not keep is refuted: exit 13', async () => {
    const argv = [
      'audit',
      'mechanism',
      '--noise-multiplier',
      '0.5',
      '--clipping-norm',
      '3',
      '--epsilon',
      '1',
    ];
    const { code, out } = await run(dir, ...argv);
    expect(code).toBe(13);
    expect(out).toContain('the claim is refuted');
    expect(out).toContain('epsilon 1.0000');
  });

  test.each([
    [['--noise-multiplier', '0'], 'more than 0'],
    [['--delta', '1'], 'less than 1'],
    [['--trials', '10'], 'from 1000'],
  ])('%j: exit 2, and says what would be right', async (flags, hint) => {
    const { code, err } = await run(dir, 'audit', 'mechanism', ...flags);
    expect(code).toBe(2);
    expect(err.replaceAll(/\s+/g, ' ')).toContain(hint);
  });
});

describe('audit inversion', () => {
  const { dense, flatten, conv2d, globalAveragePooling2d } = tf.layers;
  const inputShape = [6, 6, 1];
  const models: Record<string, () => tf.layers.Layer[]> = {
    'dense-first': () => [
      flatten({ inputShape }),
      dense({ units: 12, activation: 'relu', name: 'hidden' }),
      dense({ units: 3, activation: 'softmax', name: 'out' }),
    ],
    'conv-first': () => [
      conv2d({ inputShape, filters: 4, kernelSize: 3, activation: 'relu', name: 'conv' }),
      flatten({}),
      dense({ units: 3, activation: 'softmax', name: 'out' }),
    ],
    'two-classes': () => [flatten({ inputShape }), dense({ units: 1, activation: 'sigmoid', name: 'out' })],
    'no-dense': () => [
      conv2d({ inputShape, filters: 3, kernelSize: 3, name: 'conv' }),
      globalAveragePooling2d({ dataFormat: 'channelsLast' }),
      tf.layers.softmax({}),
    ],
  };

  beforeAll(async () => {
    await loadEngine({ prefer: 'cpu' });
    for (const [name, layers] of Object.entries(models)) {
      const builder: ModelBuilder = () => tf.sequential({ layers: layers() });
      const artifact = await artifactFromBuilder(builder, 1);
      const classes = name === 'two-classes' ? ['cat', 'dog'] : ['cat', 'dog', 'owl'];
      const input = { height: 6, width: 6, channels: 1 } as const;
      const federation = resolveFederation(
        { name, model: name, classes, input, augmentation: { rescale: 1 / 255 } },
        artifact,
      );
      const model = { format: 'tributary-model', runId: 'test', round: 0, federation, dir } as const;
      await exportModel({ ...model, tensors: artifact.weights }, join(dir, name), 'safetensors');
    }
  });
  const audit = async (name: string) => {
    const { code, out } = await run(dir, 'audit', 'inversion', name, '--engine', 'cpu', '--json');
    return { code, report: JSON.parse(out) as Record<string, unknown> };
  };

  test('a dense layer on the pixels: the image and its label are read, exit 13', async () => {
    const { code, report } = await audit('dense-first');
    expect(code).toBe(13);
    expect(report).toMatchObject({
      type: 'inversion',
      layer: 'hidden',
      reads: 'image',
      inputs: 36,
      label: 0,
    });
    expect(report['mse']).toBeLessThan(1e-6);
    expect(report['leakedLabels']).toEqual([0]);
  });

  test('a dense layer behind a convolution: features and the label are read, and not the image', async () => {
    const { code, report } = await audit('conv-first');
    expect(code).toBe(0);
    // 4 x 4 places of 4 filters.
    expect(report).toMatchObject({ layer: 'out', reads: 'features', inputs: 64, leakedLabels: [0] });
    expect(report['mse']).toBeLessThan(1e-6);
  });

  test('a single sigmoid output: the label by its sign', async () => {
    expect((await audit('two-classes')).report).toMatchObject({
      reads: 'image',
      label: 0,
      leakedLabels: [0],
    });
  });

  test('no dense layer: nothing is read without a search', async () => {
    const { code, report } = await audit('no-dense');
    expect(code).toBe(0);
    expect(report).toEqual({ type: 'inversion', image: 'random pixels', label: 0 });
    const { out } = await run(dir, 'audit', 'inversion', 'no-dense', '--engine', 'cpu');
    expect(out).toContain('no dense layer with a bias');
  });

  test('images by name are taken as the model takes them; one that is not there is exit 2', async () => {
    const png = new PNG({ width: 6, height: 6 });
    png.data = Buffer.from(Array.from({ length: 144 }, (_, i) => (i % 4 === 3 ? 255 : i)));
    writeFileSync(join(dir, 'grey.png'), PNG.sync.write(png));
    const argv = ['audit', 'inversion', 'dense-first', '--engine', 'cpu', '--image'];
    const { code, out } = await run(dir, ...argv, 'grey.png');
    expect(code).toBe(13);
    expect(out).toContain('grey.png');
    expect(out).toContain('the update gives the image away');
    expect((await run(dir, ...argv, 'nowhere.png')).code).toBe(2);
  });
});
