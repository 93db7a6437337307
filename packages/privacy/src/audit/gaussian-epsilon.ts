/**
 * The exact epsilon of one release of the Gaussian mechanism (Balle and Wang 2018, theorem 8), which is also that of k
 * releases with noise sqrt(k) times larger (Dong, Roth and Su 2022): the claim that audits hold a mechanism to.
 */

const MAX_EPSILON = 1e6;
const HALVINGS = 200;

/**
 * Returns the least epsilon at which noise of `noiseMultiplier` times the sensitivity is (epsilon, delta) private.
 * Infinity without noise. Throws RangeError unless noiseMultiplier >= 0 and delta is in (0, 1).
 */
export function gaussianEpsilon(noiseMultiplier: number, delta: number): number {
  if (!(noiseMultiplier >= 0)) throw new RangeError(`noiseMultiplier is 0 or more, not ${noiseMultiplier}`);
  if (!(delta > 0 && delta < 1)) throw new RangeError(`delta is between 0 and 1, not ${delta}`);
  if (gaussianDelta(noiseMultiplier, MAX_EPSILON) > delta) return Infinity;
  let [low, high] = [0, MAX_EPSILON];
  if (gaussianDelta(noiseMultiplier, 0) <= delta) return 0;
  for (let i = 0; i < HALVINGS && low < high; i++) {
    const middle = (low + high) / 2;
    if (gaussianDelta(noiseMultiplier, middle) > delta) low = middle;
    else high = middle;
  }
  return high;
}

/** Phi(1 / (2 z) - epsilon z) - e^epsilon Phi(-1 / (2 z) - epsilon z). */
function gaussianDelta(noiseMultiplier: number, epsilon: number): number {
  if (noiseMultiplier === 0) return 1;
  const half = 1 / (2 * noiseMultiplier);
  const shift = epsilon * noiseMultiplier;
  return normalTail(shift - half) - Math.exp(epsilon + logNormalTail(shift + half));
}

/** P[N(0, 1) > x]. */
function normalTail(x: number): number {
  return x < 0 ? 1 - Math.exp(logNormalTail(-x)) : Math.exp(logNormalTail(x));
}

/** Its logarithm, for x >= 0: the series of Phi - 1/2 near 0, the continued fraction of Mills's ratio beyond. */
function logNormalTail(x: number): number {
  const logDensity = -(x * x) / 2 - 0.5 * Math.log(2 * Math.PI);
  if (x < 3) {
    let term = x;
    let sum = x;
    for (let k = 3; term > sum * Number.EPSILON; k += 2) {
      term *= (x * x) / k;
      sum += term;
    }
    return Math.log(0.5 - Math.exp(logDensity) * sum);
  }
  let fraction = x;
  for (let k = 120; k >= 1; k--) fraction = x + k / fraction;
  return logDensity - Math.log(fraction);
}
