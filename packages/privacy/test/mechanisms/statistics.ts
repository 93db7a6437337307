/** What tests of random numbers need: moments, and Pearson's chi-square in standard deviations of itself. */

export function momentsOf(values: ArrayLike<number>): { mean: number; stdDev: number; kurtosis: number } {
  const n = values.length;
  let sum = 0;
  for (let i = 0; i < n; i++) sum += values[i]!;
  const mean = sum / n;
  let second = 0;
  let fourth = 0;
  for (let i = 0; i < n; i++) {
    const square = (values[i]! - mean) ** 2;
    second += square;
    fourth += square * square;
  }
  return { mean, stdDev: Math.sqrt(second / n), kurtosis: (fourth * n) / second ** 2 };
}

/** How far chi-square is from its mean, in its standard deviations; less than once in a million runs is it
 * beyond 7 with at least 60 degrees of freedom, and beyond 10 with at least 8. */
export function chiSquareDeviations(counts: ArrayLike<number>, expected: ArrayLike<number>): number {
  let chiSquare = 0;
  for (let i = 0; i < counts.length; i++) chiSquare += (counts[i]! - expected[i]!) ** 2 / expected[i]!;
  const freedom = counts.length - 1;
  return (chiSquare - freedom) / Math.sqrt(2 * freedom);
}

/** The probability that a standard normal number is below x: Simpson's rule, to 1e-10. */
export function normalCdf(x: number): number {
  const steps = 2000;
  const width = x / steps;
  let sum = 0;
  for (let i = 0; i <= steps; i++) {
    sum += Math.exp(-((i * width) ** 2) / 2) * (i === 0 || i === steps ? 1 : i % 2 === 1 ? 4 : 2);
  }
  return 0.5 + (sum * width) / 3 / Math.sqrt(2 * Math.PI);
}
