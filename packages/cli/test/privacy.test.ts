import { describe, expect, test } from 'vitest';
import { exitCode } from '../src/exit-codes.ts';
import { commandsIn, readPage, wordsOf } from './documents.ts';
import { ROOT, run } from './support.ts';

const plan = (line: string) => run(ROOT, 'privacy', 'plan', ...line.split(' '));

async function planned(line: string): Promise<Record<string, unknown>> {
  const { code, out } = await plan(`${line} --json`);
  expect(code, out).toBe(0);
  return JSON.parse(out) as Record<string, unknown>;
}

const MNIST = '--delta 1e-5 --records 60000 --batch-size 256';

describe('tributary privacy plan', () => {
  test('docs/cli.md shows what it prints', async () => {
    const section = readPage('docs/cli.md')
      .split(/^## /m)
      .find((text) => text.startsWith('privacy\n'))!;
    const [line = ''] = commandsIn(section, 'blocks');
    const [, shown = ''] = /```\nnpx tributary [^\n]*\n([\s\S]*?)```/.exec(section) ?? [];
    const { code, out } = await run(ROOT, ...wordsOf(line));
    expect(code).toBe(0);
    expect(shown.trim()).not.toBe('');
    expect(shown.trim()).toBe(out.trim());
  });

  test('an epsilon: the noise that keeps it, upwards to four digits, and what both accountants make of it', async () => {
    const made = await planned(`--target-epsilon 3 ${MNIST} --epochs 3`);
    // 3 * 60000 / 256 = 703.125, up to whole batches.
    expect(made).toMatchObject({ type: 'privacy-plan', sampling: 'poisson', steps: 704, delta: 1e-5 });
    const { noiseMultiplier, epsilon, found } = made as {
      noiseMultiplier: number;
      epsilon: { pld: number; rdp: number };
      found: { what: string; by: { pld: number; rdp: number } };
    };
    expect(epsilon.pld).toBeLessThanOrEqual(3);
    expect(epsilon.pld).toBeGreaterThan(2.98);
    expect(epsilon.rdp).toBeGreaterThan(3);
    expect(found.what).toBe('noise');
    expect(noiseMultiplier).toBeGreaterThanOrEqual(found.by.pld);
    expect(found.by.rdp).toBeGreaterThan(noiseMultiplier);
    expect(await planned(`--noise-multiplier ${noiseMultiplier} ${MNIST} --epochs 3`)).toMatchObject({
      epsilon,
    });
  });

  test('a noise multiplier: what it costs, as the reference table says', async () => {
    const { epsilon } = (await planned(`--noise-multiplier 1.1 ${MNIST} --steps 14063`)) as {
      epsilon: { pld: number; rdp: number };
    };
    expect(epsilon.rdp).toBeCloseTo(2.596656, 5);
    expect(Math.abs(epsilon.pld - 2.381779)).toBeLessThan(1e-3);
  });

  test('both: how many steps they allow', async () => {
    const made = await planned('--noise-multiplier 1 --target-epsilon 2 --delta 1e-6 --sampling-rate 0.02');
    const { steps, found } = made as { steps: number; found: { what: string; by: { rdp: number } } };
    expect(found.what).toBe('steps');
    expect(found.by.rdp).toBeLessThan(steps);
    const costOf = async (count: number) =>
      (
        (await planned(`--noise-multiplier 1 --delta 1e-6 --sampling-rate 0.02 --steps ${count}`)) as {
          epsilon: { pld: number };
        }
      )['epsilon'].pld;
    expect(await costOf(steps)).toBeLessThanOrEqual(2);
    expect(await costOf(steps + 1)).toBeGreaterThan(2);
  });

  test('rounds count up to whole batches each; an epoch at a rate is 1 / rate steps', async () => {
    expect(await planned(`--noise-multiplier 1 ${MNIST} --rounds 10`)).toMatchObject({ steps: 2350 });
    expect(
      await planned('--noise-multiplier 1 --delta 1e-5 --sampling-rate 0.1 --epochs 3 --rounds 2'),
    ).toMatchObject({ steps: 60 });
  });

  test('batches of a fixed size are told apart, and a delta that lets whole records out is said', async () => {
    const { out } = await plan('--noise-multiplier 1 --delta 0.01 --records 100 --batch-size 10 --steps 10');
    expect(out).toContain('exactly 10 records');
    expect(out).toContain('delta is not below 1 / records');
    expect((await plan(`--noise-multiplier 1 ${MNIST} --steps 10`)).out).not.toContain('1 / records');
  });

  test('says when Rényi’s list of orders ends too early', async () => {
    const { out } = await plan('--noise-multiplier 0.05 --delta 1e-5 --sampling-rate 0.5 --steps 10');
    expect(out).toContain('best order is 1.1, an end of its list');
    expect((await plan(`--noise-multiplier 1 ${MNIST} --steps 10`)).out).not.toContain('an end of');
  });

  test('of sites: rounds are Gaussians of everyone, and the noise in the mean follows from how many are asked', async () => {
    // By dp_accounting one Gaussian with 2 costs 1.99309 at 1e-5, and so do 25 of 10: 10 / sqrt(25) = 2.
    const made = await planned('--unit site --noise-multiplier 10 --delta 1e-5 --rounds 25 --sites 4');
    expect(made).toMatchObject({
      unit: 'site',
      sampling: 'everyone',
      samplingRate: 1,
      steps: 25,
      noiseInMean: { coordinator: 2.5, site: 5 },
    });
    const { epsilon, replacedEpsilon } = made as { epsilon: { pld: number }; replacedEpsilon: number };
    expect(Math.abs(epsilon.pld - 1.9930914)).toBeLessThan(2e-3);
    // Replaced, it moves twice as far: as with 1.
    expect(Math.abs(replacedEpsilon - 4.3771781)).toBeLessThan(2e-3);

    const found = await planned('--unit site --target-epsilon 1.9930914 --delta 1e-5 --rounds 25');
    expect(found['noiseMultiplier']).toBeGreaterThan(9.99);
    expect(found['noiseMultiplier']).toBeLessThan(10.02);
    expect(
      await planned('--unit site --target-epsilon 1.995 --noise-multiplier 10 --delta 1e-5'),
    ).toMatchObject({ steps: 25 });
    const { out } = await plan('--unit site --noise-multiplier 10 --delta 1e-5 --rounds 25 --sites 4');
    expect(out).toMatch(/noise in the mean *2\.5 .*coordinator\n *5 .*site/);
  });

  test.each([
    ['--unit patient --noise-multiplier 1 --delta 1e-5 --rounds 1', 'record, site'],
    ['--unit site --noise-multiplier 1 --delta 1e-5', '--rounds'],
    ['--unit site --noise-multiplier 1 --delta 1e-5 --rounds 1 --epochs 1', 'about records'],
    ['--noise-multiplier 1 --delta 1e-5 --sampling-rate 0.1 --steps 1 --sites 3', '--unit site'],
    ['--noise-multiplier 1 --sampling-rate 0.1 --steps 1', '--delta'],
    ['--delta 1 --noise-multiplier 1 --sampling-rate 0.1 --steps 1', 'more than 0 and less than 1'],
    ['--delta 1e-5 --noise-multiplier 0 --sampling-rate 0.1 --steps 1', 'more than 0 and at most 1000000'],
    ['--delta 1e-5 --noise-multiplier 1 --sampling-rate 1.1 --steps 1', 'more than 0 and at most 1.'],
    [
      '--delta 1e-5 --noise-multiplier 1 --sampling-rate 0.1 --steps 1.5',
      'whole number from 1 to 1000000000',
    ],
    ['--delta 1e-5 --sampling-rate 0.1 --steps 1', '--target-epsilon, --noise-multiplier'],
    ['--delta 1e-5 --target-epsilon 1 --sampling-rate 0.1', '--epochs, --steps'],
    ['--delta 1e-5 --noise-multiplier 1 --sampling-rate 0.1', '--epochs, --steps'],
    ['--delta 1e-5 --noise-multiplier 1 --records 10 --steps 1', '--records, --batch-size'],
    ['--delta 1e-5 --noise-multiplier 1 --records 10 --batch-size 11 --steps 1', 'at most 10'],
    ['--delta 1e-5 --noise-multiplier 1 --records 10 --sampling-rate 0.1 --steps 1', 'given twice'],
    ['--delta 1e-5 --noise-multiplier 1 --sampling-rate 0.1 --steps 1 --epochs 1', 'given twice'],
    ['--delta 1e-5 --noise-multiplier 1 --sampling-rate 1e-9 --epochs 1000', '1000000000 can be planned'],
    [
      '--delta 1e-5 --target-epsilon 1 --noise-multiplier 1 --sampling-rate 0.1 --steps 1',
      'Leave one of the three',
    ],
  ])('%s: exit 2, and says which flag and what would be right', async (line, hint) => {
    const { code, err } = await plan(line);
    expect(code).toBe(exitCode('usage'));
    expect(err.replaceAll(/\s+/g, ' ')).toContain(hint);
  });
});
