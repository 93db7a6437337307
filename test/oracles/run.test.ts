import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '..', '..');
let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'tributary-oracles-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function run(folder: string) {
  const argv = [
    '--conditions=@tributary/source',
    '--import',
    'tsx',
    join(import.meta.dirname, 'run.ts'),
    folder,
  ];
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, { cwd: root, encoding: 'utf8' });
  return { status, output: stdout + stderr };
}

const grayscale = (gray: number) => JSON.stringify({ grayscale: { rgb: [255, 0, 0], gray: [gray] } });

describe('oracle runner', () => {
  it('passes the fixtures, which SciPy, numpy, Pillow and other accountants computed', () => {
    const { status, output } = run(join(import.meta.dirname, 'fixtures'));
    expect(output).toMatch(/image-data-generator\.json\s+\d{3,}\s+0\s/);
    expect(output).toMatch(/accountant\.json\s+9\s+0\s/);
    expect(status).toBe(0);
  });

  it('exits non-zero on a miss and says which', () => {
    // (19595 · 255 + 32768) >> 16 = 76
    writeFileSync(join(dir, 'image-data-generator.json'), grayscale(77));
    const { status, output } = run(dir);
    expect(status).toBe(1);
    expect(output).toContain('grayscale: value 0 is 76, expected 77');
  });

  it('lists a subject that is not built, and lets it fail nothing', () => {
    writeFileSync(join(dir, 'image-data-generator.json'), grayscale(76));
    writeFileSync(join(dir, 'from-the-future.json'), '{}');
    const { status, output } = run(dir);
    expect(output).toMatch(/from-the-future\.json\s+not built yet/);
    expect(status).toBe(0);
  });

  // One round from 1: (1 * 5 + 3 * 9) / 4 = 8.
  const averaged = (expected: number, strategy = 'fed-avg', options = {}) => ({
    name: `${strategy} case`,
    strategy,
    options,
    initial: [1],
    rounds: [
      {
        updates: [
          { nodeId: 'a', numExamples: 1, weights: [5] },
          { nodeId: 'b', numExamples: 3, weights: [9] },
        ],
        expected: [expected],
      },
    ],
    tolerance: 1e-6,
  });
  const strategies = (...cases: object[]) =>
    writeFileSync(join(dir, 'strategies.json'), JSON.stringify({ cases }));

  it('runs the strategies that are built, and names each case that it could not run', () => {
    strategies(
      averaged(8),
      averaged(3, 'fed-from-the-future', { q: 1 }),
      averaged(7, 'fed-avg', { weighting: 'uniform' }),
    );
    const { status, output } = run(dir);
    expect(output).toMatch(/strategies\.json +2 +0 +\S+ +1 more cases not built yet, listed below/);
    expect(output).toContain(
      'strategies.json: not built yet, not run: fed-from-the-future: fed-from-the-future case',
    );
    expect(status).toBe(0);
  });

  it('exits non-zero when a built strategy misses, or does not know an option', () => {
    strategies(averaged(8.1));
    expect(run(dir)).toMatchObject({
      status: 1,
      output: expect.stringContaining('value 0 is 8, expected 8.1'),
    });
    strategies(averaged(8, 'fed-avg', { wieghting: 'uniform' }));
    expect(run(dir)).toMatchObject({ status: 1, output: expect.stringContaining('wieghting') });
  });

  // One Gaussian release: Rényi epsilon 1.00000029 at the whole order 22, and 0.92739 exactly.
  const gaussian = { noiseMultiplier: 4.530877117, samplingRate: 1, steps: 1, delta: 1e-6 };
  const accounted = (...figures: object[]) =>
    writeFileSync(
      join(dir, 'accountant.json'),
      JSON.stringify({ cases: figures.map((one) => ({ ...gaussian, ...one })) }),
    );

  it('accountant: takes what is as near as the oracle asks, and counts rdp and pld as a case each', () => {
    accounted({ rdp: 1, pld: 0.9274 }, { pld: 0.913 }, { pld: 0.928 }, { rdp: 1.0009, tolerance: 1e-3 });
    const { status, output } = run(dir);
    expect(output).toMatch(/accountant\.json +5 +0 /);
    expect(status).toBe(0);
  });

  it('accountant: misses by 2e-5 at a whole order, by 0.0155 above and by 0.0015 below, and says which', () => {
    accounted(
      { rdp: 1.00002 },
      { rdp: 0.99998 },
      { pld: 0.9119 },
      { pld: 0.9289 },
      { rdp: 1.002, tolerance: 1e-3 },
    );
    const { status, output } = run(dir);
    expect(output).toMatch(/accountant\.json +5 +5 /);
    expect(output).toContain('case 2 (noise 4.530877117, rate 1, 1 steps) pld: got 0.92739');
    expect(status).toBe(1);
  });

  it('accountant: a case without a figure is malformed', () => {
    accounted({});
    expect(run(dir)).toMatchObject({ status: 1, output: expect.stringContaining('malformed') });
  });

  it('exits non-zero when a file is malformed, empty or of another form', () => {
    for (const text of ['{"grayscale":', '{}', '[]', '{"affine": [{"variant": "keras9"}]}']) {
      writeFileSync(join(dir, 'image-data-generator.json'), text);
      const { status, output } = run(dir);
      expect(output).toContain('malformed');
      expect(status).toBe(1);
    }
  });

  it('exits non-zero when the folder is absent or holds no oracle', () => {
    expect(run(join(dir, 'nowhere')).status).toBe(1);
    expect(run(dir).status).toBe(1);
  });
});
