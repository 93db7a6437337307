/**
 * Who holds which digits: an uneven, non-IID split that is the same for the same seed. A share of every digit goes to
 * a common test set that no site holds; the rest is dealt by fixed site sizes times a Dirichlet draw a digit, so that
 * a site has much of some digits and hardly any of others.
 */
import type { DigitFile } from './digits.ts';

export interface SplitOptions {
  readonly seed: number;
  readonly sites: readonly string[];
  /** Samples there are of each digit. */
  readonly counts: readonly number[];
  /** Which digits take part. @default all */
  readonly digits?: readonly number[];
  /** Samples of each digit to use at most. @default all */
  readonly perDigit?: number;
  /** Of each digit, in [0, 1]. @default 0.15 */
  readonly testShare?: number;
  /** A site's own test split, of what it holds, in [0, 1]. @default 0.1 */
  readonly siteTestShare?: number;
  /** Concentration of the Dirichlet draw; small is skewed. @default 0.8 */
  readonly concentration?: number;
  /** Whether all sites get about as many. @default false: the first has most */
  readonly even?: boolean;
}

export interface Split {
  /** Paths start with `test/` or with the site's name. */
  readonly files: readonly DigitFile[];
  /** Site, then digit, to training images. */
  readonly trainCounts: Readonly<Record<string, readonly number[]>>;
  readonly testCount: number;
}

/** A split of `counts` samples. Every site gets at least one training image of every digit that takes part. */
export function splitDigits(options: SplitOptions): Split {
  const { seed, sites, counts, testShare = 0.15, siteTestShare = 0.1, concentration = 0.8 } = options;
  const random = mulberry32(seed);
  const sizes = options.even ? sites.map(() => 1 / sites.length) : siteSizes(sites.length);
  const files: DigitFile[] = [];
  const trainCounts: Record<string, number[]> = Object.fromEntries(
    sites.map((site) => [site, counts.map(() => 0)]),
  );
  let testCount = 0;
  for (const [digit, available] of counts.entries()) {
    if (options.digits !== undefined && !options.digits.includes(digit)) continue;
    const samples = shuffled(available, random).slice(0, options.perDigit ?? available);
    const test = samples.splice(0, Math.round(samples.length * testShare));
    testCount += test.length;
    for (const sample of test) files.push({ digit, sample, path: pathOf('test', digit, sample) });

    const weights = sizes.map((size) => size * gamma(concentration, random));
    for (const [i, share] of deal(samples.length, weights).entries()) {
      const site = sites[i]!;
      const own = samples.splice(0, share);
      const held = Math.min(own.length - 1, Math.round(own.length * siteTestShare));
      trainCounts[site]![digit] = own.length - held;
      for (const [at, sample] of own.entries()) {
        files.push({ digit, sample, path: pathOf(`${site}/${at < held ? 'test' : 'train'}`, digit, sample) });
      }
    }
  }
  return { files, trainCounts, testCount };
}

/** Shares of the whole: the first site has most. Three sites: 55, 30 and 15 %. */
export function siteSizes(count: number): number[] {
  if (count === 3) return [0.55, 0.3, 0.15];
  const weights = Array.from({ length: count }, (_, i) => 1 / (1 + i * 0.8));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

/** `total` things dealt in proportion to `weights`, at least one to each, with nothing left over. */
function deal(total: number, weights: readonly number[]): number[] {
  const sum = weights.reduce((a, b) => a + b, 0);
  const free = total - weights.length;
  const exact = weights.map((weight) => (weight / sum) * free);
  const shares = exact.map((share) => 1 + Math.floor(share));
  const byRemainder = exact
    .map((share, i) => [share - Math.floor(share), i] as const)
    .sort((a, b) => b[0] - a[0]);
  const left = total - shares.reduce((a, b) => a + b, 0);
  for (let i = 0; i < left; i++) shares[byRemainder[i]![1]]!++;
  return shares;
}

function pathOf(folder: string, digit: number, sample: number): string {
  return `${folder}/${digit}/${String(sample).padStart(4, '0')}.png`;
}

function shuffled(count: number, random: () => number): number[] {
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** A Gamma(shape, 1) draw (Marsaglia and Tsang 2000); gammas over their sum are a Dirichlet draw. */
function gamma(shape: number, random: () => number): number {
  if (shape < 1) return gamma(shape + 1, random) * (1 - random()) ** (1 / shape);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    const v = (1 + c * x) ** 3;
    if (v > 0 && Math.log(1 - random()) < 0.5 * x * x + d - d * v + d * Math.log(v)) return d * v;
  }
}

/** Uniform in [0, 1) from a 32-bit state (mulberry32, Tommy Ettinger 2017): enough for dealing cards. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
