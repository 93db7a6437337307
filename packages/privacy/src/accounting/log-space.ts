/** Sums, binomials and integrals of numbers too large or small for a double: their logarithms. */

/** ln(e^x - 1), for x above 0. */
export function logExpm1(x: number): number {
  return x > 40 ? x + Math.log1p(-Math.exp(-x)) : Math.log(Math.expm1(x));
}

/** ln of a sum of exponentials, gathered term by term. */
export class LogSum {
  #largest = -Infinity;
  #sum = 0;

  add(term: number): void {
    if (term === -Infinity) return;
    if (term <= this.#largest) {
      this.#sum += Math.exp(term - this.#largest);
    } else {
      this.#sum = this.#sum * Math.exp(this.#largest - term) + 1;
      this.#largest = term;
    }
  }

  get value(): number {
    return this.#largest === Infinity ? Infinity : this.#largest + Math.log(this.#sum);
  }
}

const logFactorials = [0];

/** ln of n over k, for whole numbers 0 <= k <= n. */
export function logBinomial(n: number, k: number): number {
  for (let i = logFactorials.length; i <= n; i++) logFactorials.push(logFactorials[i - 1]! + Math.log(i));
  return logFactorials[n]! - logFactorials[k]! - logFactorials[n - k]!;
}

/**
 * Points of the trapezoid rule for an integrand under a normal density of mean 0 and `stdDev` that grows at most as its
 * likelihood ratio against mean 1 to the power of `order`: its mass lies around 0 and around `order`. For analytic
 * integrands the rule converges exponentially once `step` is a fraction of their narrowest feature.
 */
export function pointsUnderNormal(stdDev: number, order: number, step: number): number[] {
  // Outside of these windows the integrand is below e^-45 of its peak; where the two parts meet it may be 2^order higher.
  const reach = stdDev * Math.sqrt(2 * (45 + order * Math.LN2));
  const points: number[] = [];
  let next = -reach;
  for (const centre of [0, order]) {
    const from = Math.max(next, centre - reach);
    const count = Math.max(0, Math.ceil((centre + reach - from) / step));
    for (let i = 0; i < count; i++) points.push(from + i * step);
    next = from + count * step;
  }
  return points;
}
