/**
 * The standard normal distribution to full double precision, tails included. Both halves go through the Mills ratio
 * R(x) = (1 - cdf(x)) / pdf(x): its power series near 0, its continued fraction (Laplace) further out.
 */

const SERIES_UP_TO = 2;
/** Enough for 1e-16 at SERIES_UP_TO, where the fraction converges slowest. */
const FRACTION_TERMS = 160;

/** The density at `x`. */
export function normalPdf(x: number): number {
  return Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
}

/** The probability of a value up to `x`, accurate relative to itself also where it is tiny. */
export function normalCdf(x: number): number {
  return x <= 0 ? normalPdf(x) * millsRatio(-x) : 1 - normalPdf(x) * millsRatio(x);
}

/** The probability of more than `x`, divided by the density at `x`; for `x` of 0 or more. */
export function millsRatio(x: number): number {
  if (!(x >= 0)) throw new RangeError(`millsRatio: x is ${x}, and must be 0 or more`);
  if (x < SERIES_UP_TO) {
    // cdf(x) - 1/2 = pdf(x) (x + x^3/3 + x^5/15 + ...)
    let term = x;
    let sum = 0;
    for (let odd = 3; term > 1e-18; odd += 2) {
      sum += term;
      term *= (x * x) / odd;
    }
    return 0.5 / normalPdf(x) - sum;
  }
  // 1 / (x + 1 / (x + 2 / (x + 3 / ...)))
  let denominator = x;
  for (let k = FRACTION_TERMS; k >= 1; k--) denominator = x + k / denominator;
  return 1 / denominator;
}
