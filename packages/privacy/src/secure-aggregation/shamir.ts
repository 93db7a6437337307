/**
 * Secret sharing (Shamir, 1979) over GF(2^128): a secret becomes `count` shares, any `threshold` of which give it back and
 * fewer of which say nothing about it. Each 16 bytes of the secret are shared by a polynomial of their own, whose value
 * at 0 they are; the share of holder i (from 1) is the value at i.
 */
import { randomFillSync } from 'node:crypto';
import {
  addInto,
  ELEMENT_BYTES,
  type Element,
  invertAll,
  multiply,
  multiplyBySmall,
  polynomialAt,
  readElement,
  smallElement,
  writeElement,
} from './gf128.ts';

const MAX_SHARES = 1_000_000;
const ELEMENT_WORDS = ELEMENT_BYTES / 4;

/**
 * Returns `count` shares of `secret`, each as long as it; the first is for x = 1. The secret is a whole number of 16 bytes,
 * at least one. Throws RangeError unless 2 ≤ `threshold` ≤ `count`.
 */
export function splitSecret(secret: Uint8Array, threshold: number, count: number): Uint8Array[] {
  if (secret.length === 0 || secret.length % ELEMENT_BYTES !== 0)
    throw new RangeError(`a secret of ${secret.length} bytes can't be shared: 16, 32, 48 … are what can`);
  if (!Number.isInteger(count) || count < 2 || count > MAX_SHARES)
    throw new RangeError(`${count} shares: from 2 to ${MAX_SHARES} can be made`);
  if (!Number.isInteger(threshold) || threshold < 2 || threshold > count)
    throw new RangeError(`a threshold of ${threshold} with ${count} shares: from 2 to ${count} is possible`);
  const shares = Array.from({ length: count }, () => new Uint8Array(secret.length));
  const coefficients = new Uint32Array(threshold * ELEMENT_WORDS);
  for (let offset = 0; offset < secret.length; offset += ELEMENT_BYTES) {
    // Random bits are an element in any order of bytes.
    randomFillSync(coefficients);
    const constant = readElement(secret, offset);
    coefficients.set(constant);
    constant.fill(0);
    shares.forEach((share, index) => {
      writeElement(polynomialAt(coefficients, index + 1), share, offset);
    });
  }
  coefficients.fill(0);
  return shares;
}

/**
 * Returns the function that gives back a secret from the shares of the holders `xs` (integers from 1, none twice), in the
 * order of `xs`. Made once for the same holders of many secrets. That there are enough of them, and that they are right,
 * it can't know.
 */
export function secretFromShares(xs: readonly number[]): (shares: readonly Uint8Array[]) => Uint8Array {
  if (xs.length === 0 || xs.some((x) => !Number.isInteger(x) || x < 1 || x > MAX_SHARES))
    throw new RangeError(`holders ${xs.join(', ')}: integers from 1 to ${MAX_SHARES} are needed`);
  if (new Set(xs).size < xs.length) throw new RangeError(`holders ${xs.join(', ')}: one is there twice`);
  const weights = weightsAtZero(xs);
  return (shares) => {
    const length = shares[0]?.length ?? 0;
    if (shares.length !== xs.length || length === 0 || length % ELEMENT_BYTES !== 0)
      throw new RangeError(`${shares.length} shares of ${length} bytes for ${xs.length} holders`);
    if (shares.some((share) => share.length !== length)) throw new RangeError('shares differ in length');
    const secret = new Uint8Array(length);
    for (let offset = 0; offset < length; offset += ELEMENT_BYTES) {
      const sum = smallElement(0);
      shares.forEach((share, i) => {
        addInto(sum, multiply(weights[i]!, readElement(share, offset)));
      });
      writeElement(sum, secret, offset);
      sum.fill(0);
    }
    return secret;
  };
}

/** Lagrange's weights for the value at 0: Π x_j / (x_j − x_i) over j ≠ i, where − is an exclusive or. */
function weightsAtZero(xs: readonly number[]): Element[] {
  const all = smallElement(1);
  for (const x of xs) multiplyBySmall(all, x);
  const divisors = xs.map((x, i) => {
    const divisor = smallElement(x);
    xs.forEach((other, j) => {
      if (j !== i) multiplyBySmall(divisor, other ^ x);
    });
    return divisor;
  });
  return invertAll(divisors).map((inverse) => multiply(all, inverse));
}
