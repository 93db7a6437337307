/**
 * Searches in one variable above 0: where a falling function reaches a target, and where a valley has its lowest point.
 * Both work on the variable's logarithm: noise and steps matter in proportion.
 */

interface SearchOptions {
  /** Where to begin; any positive number, better one of the right size. */
  readonly start: number;
  /** The answer is at most this much above the true one, in proportion. @default 1e-12 */
  readonly precision?: number;
  /** Nothing below this is tried, and it is the answer when it is within the target. @default 1e-12 */
  readonly least?: number;
  /** Nothing above this is tried: Infinity is the answer when it isn't within the target. @default 1e12 */
  readonly most?: number;
}

/**
 * The smallest positive x with `f(x) <= target`, for an `f` that never grows. What it returns is within the target:
 * errors of the search are on the safe side. Secants within a shrinking interval, and every fourth time its middle.
 */
export function smallestWithin(f: (x: number) => number, target: number, options: SearchOptions): number {
  const { start, precision = 1e-12, least = 1e-12, most = 1e12 } = options;
  const above = (u: number) => f(Math.exp(u)) - target;
  const [lowest, highest] = [Math.log(least), Math.log(most)];
  let step = 0.25;
  let high = Math.min(highest, Math.max(lowest, Math.log(start)));
  let atHigh = above(high);
  let low = high;
  let atLow = atHigh;
  while (!(atHigh <= 0)) {
    if (high >= highest) return Infinity;
    [low, atLow] = [high, atHigh];
    high = Math.min(highest, high + step);
    step *= 2;
    atHigh = above(high);
  }
  while (atLow <= 0) {
    [high, atHigh] = [low, atLow];
    if (low <= lowest) return least;
    low = Math.max(lowest, low - step);
    step *= 2;
    atLow = above(low);
  }
  let last = 0;
  for (let tries = 0; high - low > precision; tries++) {
    const secant = (low * atHigh - high * atLow) / (atHigh - atLow);
    const middle =
      Number.isFinite(secant) && tries % 4 !== 3
        ? Math.min(high - precision / 2, Math.max(low + precision / 2, secant))
        : (low + high) / 2;
    const value = above(middle);
    // An end that stays twice counts half, so that the next secant passes the target (the Illinois rule).
    if (value <= 0) {
      [high, atHigh] = [middle, value];
      if (last < 0) atLow /= 2;
      last = -1;
    } else {
      [low, atLow] = [middle, value];
      if (last > 0) atHigh /= 2;
      last = 1;
    }
  }
  return Math.exp(high);
}

/** Where `f` is lowest between `least` and `most`, to a thousandth in proportion, for an `f` with one valley: golden section. */
export function lowestPoint(f: (x: number) => number, least: number, most: number): number {
  const golden = (Math.sqrt(5) - 1) / 2;
  let [low, high] = [Math.log(least), Math.log(most)];
  let [left, right] = [high - golden * (high - low), low + golden * (high - low)];
  let [atLeft, atRight] = [f(Math.exp(left)), f(Math.exp(right))];
  while (high - low > 1e-3) {
    if (atLeft <= atRight) {
      [high, right, atRight] = [right, left, atLeft];
      left = high - golden * (high - low);
      atLeft = f(Math.exp(left));
    } else {
      [low, left, atLeft] = [left, right, atRight];
      right = low + golden * (high - low);
      atRight = f(Math.exp(right));
    }
  }
  return Math.exp((low + high) / 2);
}
