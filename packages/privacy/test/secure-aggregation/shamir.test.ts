import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  addInto,
  invertAll,
  multiply,
  multiplyBySmall,
  readElement,
  smallElement,
  writeElement,
} from '../../src/secure-aggregation/gf128.ts';
import { secretFromShares, splitSecret } from '../../src/secure-aggregation/shamir.ts';

const bytes = (hex: string) => new Uint8Array(Buffer.from(hex, 'hex'));
const hex = (value: Uint8Array) => Buffer.from(value).toString('hex');
const element = (text: string) => readElement(bytes(text));
const text = (value: Uint32Array) => {
  const out = new Uint8Array(16);
  writeElement(value, out);
  return hex(out);
};
const elements = fc.uint8Array({ minLength: 16, maxLength: 16 });

describe('the field GF(2^128)', () => {
  test('2^127 · 2 = 1 + 2 + 4 + 128', () => {
    const high = element('80000000000000000000000000000000');
    expect(text(multiply(high, smallElement(2)))).toBe('00000000000000000000000000000087');
    multiplyBySmall(high, 2);
    expect(text(high)).toBe('00000000000000000000000000000087');
  });

  test('products agree with carry-less multiplication of whole integers and reduction bit by bit', () => {
    const slow = (a: bigint, b: bigint) => {
      let product = 0n;
      for (let i = 0n; i < 128n; i++) if ((b >> i) & 1n) product ^= a << i;
      for (let i = 254n; i >= 128n; i--)
        if ((product >> i) & 1n) product ^= ((1n << 128n) | 0x87n) << (i - 128n);
      return product.toString(16).padStart(32, '0');
    };
    fc.assert(
      fc.property(elements, elements, fc.nat(2 ** 31 - 1), (a, b, small) => {
        const [x, y] = [BigInt(`0x${hex(a)}`), BigInt(`0x${hex(b)}`)];
        expect(text(multiply(readElement(a), readElement(b)))).toBe(slow(x, y));
        const scaled = readElement(a);
        multiplyBySmall(scaled, small);
        expect(text(scaled)).toBe(slow(x, BigInt(small)));
      }),
    );
  });

  test('an element times its inverse is 1', () => {
    fc.assert(
      fc.property(fc.array(elements, { minLength: 1, maxLength: 5 }), (list) => {
        const all = list.map((one) => readElement(one)).filter((one) => one.some((word) => word !== 0));
        const inverses = invertAll(all);
        all.forEach((one, i) => {
          expect([...multiply(one, inverses[i]!)]).toEqual([1, 0, 0, 0]);
        });
      }),
      { numRuns: 30 },
    );
  });
});

/** PyCryptodome's test vectors are of the scheme `ssss`, which adds x^k to the value of every share. */
const VECTORS = [
  {
    secret: 'd9fe73909bae28b3757854c0af7ad405',
    threshold: 2,
    shares: [
      '594ae8964294174d95c33756d2504170',
      'd897459d29da574eb40e93ec552ffe6e',
      '5823de9bf0e068b054b5f07a28056b1b',
    ],
  },
  {
    secret: 'ec96aa5c14c9faa699354cf1da74e904',
    threshold: 3,
    shares: [
      '64579fbf1908d66f7239bf6e2b4e41e1',
      '6cd9428df8017b52322561e8c672ae3e',
      'e418776ef5c0579bd9299277374806dd',
      'ab3f77a0107398d23b323e581bb43f5d',
    ],
  },
];

/** All choices of `size` of the numbers from 1 to `n`. */
function choices(n: number, size: number): number[][] {
  return Array.from({ length: 2 ** n }, (_, set) =>
    Array.from({ length: n }, (_, i) => i + 1).filter((x) => (set >> (x - 1)) & 1),
  ).filter((xs) => xs.length === size);
}

describe('shares', () => {
  test.each(VECTORS)('of $secret: any $threshold of them give it back (ssss vectors)', (vector) => {
    const shares = vector.shares.map((share, i) => {
      const x = smallElement(i + 1);
      let power = smallElement(1);
      for (let k = 0; k < vector.threshold; k++) power = multiply(power, x);
      const value = element(share);
      addInto(value, power);
      return bytes(text(value));
    });
    for (const xs of choices(shares.length, vector.threshold))
      expect(hex(secretFromShares(xs)(xs.map((x) => shares[x - 1]!)))).toBe(vector.secret);
  });

  test('any threshold of them give back the secret, whatever it is and in whatever order', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc
          .integer({ min: 2, max: 12 })
          .chain((n) => fc.tuple(fc.constant(n), fc.integer({ min: 2, max: n }))),
        fc.infiniteStream(fc.nat()),
        (secret, [n, threshold], random) => {
          const shares = splitSecret(secret, threshold, n);
          const xs = shares.map((_, i) => i + 1);
          const order = new Map(xs.map((x) => [x, random.next().value as number]));
          xs.sort((a, b) => order.get(a)! - order.get(b)!);
          const chosen = xs.slice(0, threshold);
          expect(secretFromShares(chosen)(chosen.map((x) => shares[x - 1]!))).toEqual(secret);
        },
      ),
      { numRuns: 50 },
    );
  });

  test('one fewer tells nothing: with those, every secret is possible, and one last share makes it so', () => {
    fc.assert(
      fc.property(elements, elements, (secret, other) => {
        const [threshold, n] = [4, 6];
        const shares = splitSecret(secret, threshold, n);
        // The polynomial through three shares and `other` at 0, evaluated at x = 6 by Lagrange's rule: had that been the
        // last share, the secret would have been `other`.
        const xs = [1, 3, 5];
        const points = [
          { x: 0, y: readElement(other) },
          ...xs.map((x) => ({ x, y: readElement(shares[x - 1]!) })),
        ];
        const last = smallElement(0);
        for (const { x, y } of points) {
          let term = y;
          for (const point of points) {
            if (point.x === x) continue;
            const [inverse] = invertAll([smallElement(point.x ^ x)]);
            term = multiply(multiply(term, smallElement(point.x ^ 6)), inverse!);
          }
          addInto(last, term);
        }
        const held = [...xs.map((x) => shares[x - 1]!), bytes(text(last))];
        expect(secretFromShares([...xs, 6])(held)).toEqual(other);
      }),
      { numRuns: 30 },
    );
  });

  test('below the threshold they are uniform bytes, though the secret is all zeros (chi-square, 1 in 10^9)', () => {
    const counts = new Float64Array(256);
    for (let i = 0; i < 600; i++)
      for (const share of splitSecret(new Uint8Array(32), 3, 4).slice(0, 2))
        for (const byte of share) counts[byte]! += 1;
    const expected = (600 * 2 * 32) / 256;
    const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    // 255 degrees of freedom: mean 255, standard deviation 22.6; six of them above and five below.
    expect(chiSquare).toBeLessThan(391);
    expect(chiSquare).toBeGreaterThan(142);
  });

  test('cannot be made of an empty secret, for fewer than 2, or with a threshold below 2 or above their number', () => {
    const secret = new Uint8Array(16);
    expect(() => splitSecret(new Uint8Array(0), 2, 3)).toThrow('a secret of 0 bytes');
    expect(() => splitSecret(new Uint8Array(15), 2, 3)).toThrow('a secret of 15 bytes');
    expect(() => splitSecret(secret, 2, 1)).toThrow('1 shares');
    expect(() => splitSecret(secret, 1, 3)).toThrow('a threshold of 1');
    expect(() => splitSecret(secret, 4, 3)).toThrow('a threshold of 4');
    expect(() => splitSecret(secret, 2.5, 3)).toThrow('a threshold of 2.5');
  });

  test('are refused when a holder is there twice, is none, or shares are of other sizes', () => {
    const [a, b] = splitSecret(new Uint8Array(16), 2, 2);
    expect(() => secretFromShares([1, 1])).toThrow('twice');
    expect(() => secretFromShares([0, 1])).toThrow('integers from 1');
    expect(() => secretFromShares([1, 2])([a!])).toThrow('1 shares');
    expect(() => secretFromShares([1, 2])([a!, b!.subarray(1)])).toThrow('differ in length');
  });
});
