/** Small things that tests of several packages say often. */

/** For `toMatchObject`: an error of ours with this code, whatever its class. */
export function withCode(code: string): { code: string } {
  return { code };
}

/** A promise of the first call of the function that `subscribe` is given. */
export function once<T>(subscribe: (resolve: (value: T) => void) => void): Promise<T> {
  return new Promise(subscribe);
}

/** The largest absolute difference of two arrays of one length; NaN when any element is NaN in one of them only. */
export function maxAbsDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) {
    throw new RangeError(`lengths differ: ${actual.length} and ${expected.length}`);
  }
  let worst = 0;
  for (let index = 0; index < actual.length; index++) {
    const [a, b] = [actual[index] as number, expected[index] as number];
    if (Object.is(a, b)) continue;
    worst = Math.max(worst, Math.abs(a - b));
  }
  return worst;
}
