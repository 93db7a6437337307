/**
 * The regularised incomplete beta function, whose values are the tails of the binomial distribution: what confidence
 * bounds on a rate are made of. Its continued fraction is evaluated by Lentz's method (Abramowitz and Stegun 1964,
 * 26.5.8).
 */

const MAX_TERMS = 100_000;
const TINY = 1e-300;
/** Below it, Stirling's series is not yet exact to double precision. */
const STIRLING_FROM = 12;
/** Coefficients of 1/x, 1/x^3, … : B(2k) / (2k (2k - 1)). */
const STIRLING = [1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360_360, 1 / 156];

/**
 * Returns I_x(a, b), in [0, 1], for x in [0, 1] and positive a and b. The relative error is below 1e-10 for a and b up
 * to 10^4, and grows with them to 1e-8 at 10^6.
 */
export function regularizedIncompleteBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  // The fraction converges quickly on this side of the mean; I_x(a, b) = 1 - I_(1-x)(b, a) leads there.
  return x < (a + 1) / (a + b + 2) ? tail(x, a, b) : 1 - tail(1 - x, b, a);
}

/** Returns P[Binomial(n, p) >= k], for whole n and k from 0 to n. */
export function binomialUpperTail(n: number, p: number, k: number): number {
  return k <= 0 ? 1 : regularizedIncompleteBeta(p, k, n - k + 1);
}

function tail(x: number, a: number, b: number): number {
  const logFront = a * Math.log(x) + b * Math.log1p(-x) + logGamma(a + b) - logGamma(a) - logGamma(b);
  return (Math.exp(logFront) * continuedFraction(x, a, b)) / a;
}

function continuedFraction(x: number, a: number, b: number): number {
  let c = 1;
  let d = 1 / nonZero(1 - ((a + b) * x) / (a + 1));
  let value = d;
  for (let m = 1; m <= MAX_TERMS; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / nonZero(1 + even * d);
    c = nonZero(1 + even / c);
    value *= d * c;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / nonZero(1 + odd * d);
    c = nonZero(1 + odd / c);
    value *= d * c;
    if (Math.abs(d * c - 1) < Number.EPSILON) return value;
  }
  return value;
}

function nonZero(value: number): number {
  return Math.abs(value) < TINY ? TINY : value;
}

/** The logarithm of the gamma function of x > 0: Stirling's series, reached by the recurrence. */
function logGamma(x: number): number {
  let product = 1;
  let y = x;
  while (y < STIRLING_FROM) product *= y++;
  const inverseSquare = 1 / (y * y);
  let series = 0;
  for (const coefficient of STIRLING.toReversed()) series = series * inverseSquare + coefficient;
  return (y - 0.5) * Math.log(y) - y + 0.5 * Math.log(2 * Math.PI) + series / y - Math.log(product);
}
