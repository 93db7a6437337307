/**
 * The field GF(2^128) with the polynomial x^128 + x^7 + x^2 + x + 1, for secret sharing. An element is four 32-bit words,
 * the lowest first; as 16 bytes it is written with the highest byte first. Products take the same steps whatever the
 * values, so that their time tells nothing of a secret.
 */

export type Element = Uint32Array;

export const ELEMENT_BYTES = 16;

/** x^7 + x^2 + x + 1: what x^128 is equal to. */
const REDUCTION = 0x87;

/** The element of a small integer, in [0, 2^32). */
export function smallElement(value: number): Element {
  return Uint32Array.of(value, 0, 0, 0);
}

/** The element that 16 bytes at `offset` stand for. */
export function readElement(bytes: Uint8Array, offset = 0): Element {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, ELEMENT_BYTES);
  return Uint32Array.of(view.getUint32(12), view.getUint32(8), view.getUint32(4), view.getUint32(0));
}

/** Writes an element as 16 bytes at `offset`. */
export function writeElement(element: Element, bytes: Uint8Array, offset = 0): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, ELEMENT_BYTES);
  for (let word = 0; word < 4; word++) view.setUint32(12 - 4 * word, element[word]!);
}

/** Adds `term` to `sum` in place: in this field, that is what subtracting does too. */
export function addInto(sum: Element, term: Element): void {
  for (let word = 0; word < 4; word++) sum[word]! ^= term[word]!;
}

/** Returns a · b. */
export function multiply(a: Element, b: Element): Element {
  const [a0, a1, a2, a3] = [a[0]!, a[1]!, a[2]!, a[3]!];
  let [p0, p1, p2, p3] = [0, 0, 0, 0];
  for (let word = 3; word >= 0; word--) {
    const factor = b[word]!;
    for (let bit = 31; bit >= 0; bit--) {
      // The product times x, and a once more where the bit is set: −1 or 0 masks what is added.
      const carry = p3 >> 31;
      const add = -((factor >>> bit) & 1);
      p3 = ((p3 << 1) | (p2 >>> 31)) ^ (a3 & add);
      p2 = ((p2 << 1) | (p1 >>> 31)) ^ (a2 & add);
      p1 = ((p1 << 1) | (p0 >>> 31)) ^ (a1 & add);
      p0 = (p0 << 1) ^ (carry & REDUCTION) ^ (a0 & add);
    }
  }
  return Uint32Array.of(p0, p1, p2, p3);
}

/** Multiplies `element` in place by a small integer, in [0, 2^31): as `multiply`, in as many steps as `factor` has bits. */
export function multiplyBySmall(element: Element, factor: number): void {
  const [a0, a1, a2, a3] = [element[0]!, element[1]!, element[2]!, element[3]!];
  let [p0, p1, p2, p3] = [0, 0, 0, 0];
  for (let bit = 31 - Math.clz32(factor); bit >= 0; bit--) {
    const carry = p3 >> 31;
    const add = -((factor >>> bit) & 1);
    p3 = ((p3 << 1) | (p2 >>> 31)) ^ (a3 & add);
    p2 = ((p2 << 1) | (p1 >>> 31)) ^ (a2 & add);
    p1 = ((p1 << 1) | (p0 >>> 31)) ^ (a1 & add);
    p0 = (p0 << 1) ^ (carry & REDUCTION) ^ (a0 & add);
  }
  element[0] = p0;
  element[1] = p1;
  element[2] = p2;
  element[3] = p3;
}

/**
 * The value at x, an integer in [1, 2^31), of the polynomial whose coefficients are elements one behind the other, that of
 * x^0 first: Horner's rule, with the product of `multiplyBySmall`.
 */
export function polynomialAt(coefficients: Uint32Array, x: number): Element {
  const highest = 31 - Math.clz32(x);
  let [v0, v1, v2, v3] = [0, 0, 0, 0];
  for (let at = coefficients.length - 4; at >= 0; at -= 4) {
    let [p0, p1, p2, p3] = [0, 0, 0, 0];
    for (let bit = highest; bit >= 0; bit--) {
      const carry = p3 >> 31;
      const add = -((x >>> bit) & 1);
      p3 = ((p3 << 1) | (p2 >>> 31)) ^ (v3 & add);
      p2 = ((p2 << 1) | (p1 >>> 31)) ^ (v2 & add);
      p1 = ((p1 << 1) | (p0 >>> 31)) ^ (v1 & add);
      p0 = (p0 << 1) ^ (carry & REDUCTION) ^ (v0 & add);
    }
    v0 = p0 ^ coefficients[at]!;
    v1 = p1 ^ coefficients[at + 1]!;
    v2 = p2 ^ coefficients[at + 2]!;
    v3 = p3 ^ coefficients[at + 3]!;
  }
  return Uint32Array.of(v0, v1, v2, v3);
}

/** Returns the inverses of elements, none of them zero, at the price of one: a^(2^128 − 2) of their product. */
export function invertAll(elements: readonly Element[]): Element[] {
  const before: Element[] = [];
  let product = smallElement(1);
  for (const element of elements) {
    before.push(product);
    product = multiply(product, element);
  }
  // 2^128 − 2 = 2 + 4 + … + 2^127.
  let inverse = smallElement(1);
  let power = product;
  for (let bit = 1; bit < 128; bit++) {
    power = multiply(power, power);
    inverse = multiply(inverse, power);
  }
  const inverses: Element[] = new Array(elements.length);
  for (let i = elements.length - 1; i >= 0; i--) {
    inverses[i] = multiply(inverse, before[i]!);
    inverse = multiply(inverse, elements[i]!);
  }
  return inverses;
}
