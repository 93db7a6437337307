import { createCipheriv, randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { agreeOnCohort, ownMask, sharedMask } from '../../src/secure-aggregation/cohort.ts';
import { pieceMasks, pieceRandom, pieceWords } from '../../src/secure-aggregation/kernel.ts';
import { createKeyPair, keyPairOf } from '../../src/secure-aggregation/keys.ts';
import { applyMasks, type Mask, openMasks } from '../../src/secure-aggregation/masks.ts';
import { createPackedSum } from '../../src/secure-aggregation/packed-sum.ts';
import { planRound } from '../../src/secure-aggregation/plan.ts';
import { secretFromShares } from '../../src/secure-aggregation/shamir.ts';
import { digestOf, federation, updateOf } from './federation.ts';

const newKey = () => new Uint8Array(randomBytes(32));

/** Of bytes: mean 255, standard deviation 22.6 when they are uniform. */
function chiSquare(bytes: Uint8Array): number {
  const counts = new Float64Array(256);
  for (const byte of bytes) counts[byte]! += 1;
  const expected = bytes.length / 256;
  return counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
}

function correlation(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const n = a.length;
  const mean = (v: ArrayLike<number>) => Array.from(v).reduce((sum, x) => sum + x, 0) / n;
  const [ma, mb] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < n; i++) {
    ab += (a[i]! - ma) * (b[i]! - mb);
    aa += (a[i]! - ma) ** 2;
    bb += (b[i]! - mb) ** 2;
  }
  return ab / Math.sqrt(aa * bb);
}

describe('a mask', () => {
  test('is AES-256 of the counters 0, 1, 2 …, added as little-endian words, for every length and in any pieces', () => {
    const key = newKey();
    const counters = Buffer.alloc(16 * 9000);
    for (let i = 0; i < 9000; i++) counters.writeUInt32BE(i, 16 * i + 12);
    const blocks = createCipheriv('aes-256-ecb', key, null).setAutoPadding(false).update(counters);
    for (const length of [1, 3, 4, 5, 1000, 16_384, 16_385, 36_000]) {
      const start = Uint32Array.from({ length }, (_, i) => Math.imul(i, 40503));
      const expected = start.map((word, i) => word + blocks.readUInt32LE(4 * i));
      const vector = start.slice();
      applyMasks(vector, [{ key, sign: 1 }]);
      expect(vector).toEqual(expected);

      const pieces = start.slice();
      const stream = openMasks([{ key, sign: 1 }]);
      for (let at = 0, step = 1; at < length; at += step, step = Math.min(16_384, step * 3)) {
        const piece = pieces.subarray(at, at + step);
        pieceWords.set(piece);
        stream.apply(piece.length);
        piece.set(pieceWords.subarray(0, piece.length));
      }
      stream.end();
      expect(pieces).toEqual(expected);
    }
  });

  test('is added with others of either sign, however many', () => {
    const length = 17_000;
    const start = Uint32Array.from({ length }, (_, i) => Math.imul(i, 2654435761));
    const alone = (key: Uint8Array) => {
      const mask = new Uint32Array(length);
      applyMasks(mask, [{ key, sign: 1 }]);
      return mask;
    };
    for (let plus = 0; plus < 6; plus++)
      for (let minus = 0; minus < 6; minus++) {
        const masks: Mask[] = Array.from({ length: plus + minus }, (_, i) => ({
          key: newKey(),
          sign: i < plus ? 1 : -1,
        })).reverse() as Mask[];
        const expected = start.slice();
        for (const { key, sign } of masks)
          alone(key).forEach((word, i) => {
            expected[i]! += sign * word;
          });
        const vector = start.slice();
        applyMasks(vector, masks);
        expect(vector).toEqual(expected);
      }
  });

  test('leaves no memory to the garbage collector: of 60 MiB of keystream, never more than one piece is there', () => {
    const stream = openMasks(Array.from({ length: 12 }, () => ({ key: newKey(), sign: 1 as const })));
    const before = process.memoryUsage().arrayBuffers;
    for (let piece = 0; piece < 80; piece++) {
      stream.apply(16_384);
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 * 65_536);
    }
    stream.end();
  });

  test('is taken off again by the other sign, among more masks than are open at a time', () => {
    const masks: Mask[] = Array.from({ length: 150 }, (_, i) => ({
      key: newKey(),
      sign: i % 3 === 0 ? -1 : 1,
    }));
    const start = Uint32Array.from({ length: 20_000 }, (_, i) => Math.imul(i, 2654435761));
    const vector = start.slice();
    applyMasks(vector, masks);
    expect(vector).not.toEqual(start);
    applyMasks(
      vector,
      masks.map(({ key, sign }) => ({ key, sign: sign === 1 ? -1 : 1 })),
    );
    expect(vector).toEqual(start);
    // Nothing of them stays in the memory where they were added.
    for (const memory of [pieceWords, pieceRandom, ...pieceMasks])
      expect(memory.every((word) => word === 0)).toBe(true);
  });
});

describe('a masked update', () => {
  const parameters = 60_000;
  const members = federation(3, {
    parameters,
    fixedPoint: { clippingRange: 1, steps: 2 ** 14 - 2, maxWeight: 4 },
  });
  const update = updateOf('s00', parameters);
  const masked = () => {
    const sites = members.ids.map((id) => members.site(id));
    const coordinator = members.coordinator();
    for (const site of sites) coordinator.receiveKeys(site.advertiseKeys());
    const keys = coordinator.closeKeys();
    for (const site of sites) coordinator.receiveShares(site.shareKeys(keys));
    return sites[0]!.mask(coordinator.closeShares().get('s00')!, [update], 3).message.packed;
  };

  test('is uniform (chi-square over its bytes, 1 in 10^9) and uncorrelated with the update', () => {
    const packed = masked();
    // 3 sites · 4 · 16382 < 2^18.
    expect(packed.length).toBe(Math.ceil((60_002 * 18) / 8));
    expect(chiSquare(packed)).toBeLessThan(391);
    expect(chiSquare(packed)).toBeGreaterThan(142);
    const words = Array.from(update, (_, i) => {
      const at = i * 18;
      const word = packed[at >> 3]! | (packed[(at >> 3) + 1]! << 8) | (packed[(at >> 3) + 2]! << 16);
      return (word >>> (at & 7)) & 0x3ffff;
    });
    // Standard deviation 1/sqrt(d); six of them.
    expect(Math.abs(correlation(words, update))).toBeLessThan(6 / Math.sqrt(parameters));
    // The same tests see an update that is not masked.
    const bare = Array.from(update, (value) => Math.round((value + 1) * 8191) * 3);
    expect(correlation(bare, update)).toBeGreaterThan(0.9);
    expect(chiSquare(new Uint8Array(Uint32Array.from(bare).buffer))).toBeGreaterThan(1000);
  });

  test('section 6, 12 (mask reuse, arXiv 2410.09676): two rounds of the same update differ by noise', () => {
    const [a, b] = [masked(), masked()];
    const difference = a.map((byte, i) => byte - b[i]!);
    expect(chiSquare(difference)).toBeLessThan(391);
  });
});

describe('section 6, 1 (Flower 7522): mask keys', () => {
  test('have 256 bits of which none is fixed, and words that are uniform over the whole modulus', () => {
    const members = federation(3);
    const plan = planRound(members.settings);
    const or = new Uint8Array(32);
    const and = new Uint8Array(32).fill(255);
    for (let i = 0; i < 40; i++) {
      const { cohort, pairs } = agreed(members);
      const mask = sharedMask(plan, cohort, 's00', 's01', { site: 's00', maskKey: pairs.get('s00')! })!;
      mask.key.forEach((byte, j) => {
        or[j]! |= byte;
        and[j]! &= byte;
      });
    }
    // Each of 256 bits is the same 40 times once in 2^39.
    expect([...or]).toEqual(new Array(32).fill(255));
    expect([...and]).toEqual(new Array(32).fill(0));
    const words = new Uint32Array(100_000);
    applyMasks(words, [{ key: newKey(), sign: 1 }]);
    const values = words.map((word) => word & 7);
    const counts = new Float64Array(8);
    for (const value of values) counts[value]! += 1;
    // 7 degrees of freedom: above 55 once in 10^9. A generator that leaves out the two largest values has 33,000.
    expect(counts.reduce((sum, count) => sum + (count - 12_500) ** 2 / 12_500, 0)).toBeLessThan(55);
  });
});

describe('section 2.5, model inconsistency (Pasquini et al., 2022)', () => {
  test('other models for other sites leave noise in the sum, not the victim’s update; the same model leaves nothing', () => {
    const d = 20_000;
    const members = federation(3, { parameters: d });
    const { cohort, pairs } = agreed(members);
    const seeds = new Map(members.ids.map((id) => [id, newKey()]));
    // What the coordinator has after unmasking: the sum, less everybody's own mask, under the model that each was sent.
    const sumOf = (modelOf: (id: string) => string) => {
      const victim = Uint32Array.from(updateOf('s01', d), (value) => Math.round((value + 2) * 1000));
      const sum = victim.slice();
      for (const id of members.ids) {
        const plan = planRound({ ...members.settings, modelDigest: digestOf(modelOf(id)) });
        const own = ownMask(plan, cohort, id, seeds.get(id)!);
        const masks = [own];
        for (const peer of cohort.neighbours(id))
          masks.push(sharedMask(plan, cohort, id, peer, { site: id, maskKey: pairs.get(id)! })!);
        applyMasks(sum, masks);
        applyMasks(sum, [{ ...own, sign: -1 }]);
      }
      return { sum, victim };
    };
    const honest = sumOf(() => 'model');
    expect(honest.sum).toEqual(honest.victim);
    const attacked = sumOf((id) => (id === 's01' ? 'model' : 'a model without gradient'));
    expect(chiSquare(new Uint8Array(attacked.sum.buffer))).toBeLessThan(391);
    expect(Math.abs(correlation(attacked.sum, attacked.victim))).toBeLessThan(6 / Math.sqrt(d));
  });
});

describe('section 2.5, one-round differencing', () => {
  test('an update that comes once its site was counted out stays noise, though the masks that it shared are known', () => {
    const d = 20_000;
    const members = federation(5, { parameters: d });
    const { plan } = members.coordinator();
    const sites = members.ids.map((id) => members.site(id));
    const coordinator = members.coordinator();
    const keys = sites.map((site) => site.advertiseKeys());
    for (const message of keys) coordinator.receiveKeys(message);
    coordinator.closeKeys();
    for (const site of sites) coordinator.receiveShares(site.shareKeys(keys));
    const deliveries = coordinator.closeShares();
    const victim = updateOf('s04', d);
    const sumOfLate = createPackedSum(plan.words, plan.fixedPoint.bits);
    const late = sumOfLate.words;
    for (const site of sites) {
      const { message } = site.mask(deliveries.get(site.site)!, [updateOf(site.site, d)], 7);
      if (site.site !== 's04') coordinator.receiveMasked(message);
      else sumOfLate.add('s04').write(message.packed);
    }
    const survivors = coordinator.closeMasked();
    expect(survivors).toEqual(['s00', 's01', 's02', 's03']);
    const counted = sites.slice(0, 4);
    for (const site of counted) coordinator.receiveSignature(site.signSurvivors(survivors));
    const request = coordinator.closeSignatures();
    const shares = counted.map((site) => site.unmask(request).maskKeyShares[0]!.share);
    // As the coordinator does to take the masks that s04 shared out of the others' sum.
    const maskKey = keyPairOf(secretFromShares([1, 2, 3, 4])(shares));
    expect(maskKey.publicKey).toEqual(keys[4]!.maskKey);
    const cohort = agreeOnCohort(plan, members.roster, keys);
    const shared = survivors.map(
      (peer): Mask => sharedMask(plan, cohort, 's04', peer, { site: 's04', maskKey })!,
    );
    applyMasks(
      late,
      shared.map(({ key, sign }) => ({ key, sign: sign === 1 ? -1 : 1 })),
    );
    const bits = 2 ** plan.fixedPoint.bits - 1;
    const words = late.subarray(0, d).map((word) => word & bits);
    // What is left is under its own mask, of which nobody tells a share.
    expect(Math.abs(correlation(words, victim))).toBeLessThan(6 / Math.sqrt(d));
  });
});

/** A cohort whose private mask keys the test knows. */
function agreed(members: ReturnType<typeof federation>) {
  const pairs = new Map(members.ids.map((id) => [id, createKeyPair()]));
  const messages = members.ids.map((site) => ({
    site,
    channelKey: createKeyPair().publicKey,
    maskKey: pairs.get(site)!.publicKey,
    seedCommitment: newKey(),
    signature: new Uint8Array(64),
  }));
  return { pairs, cohort: agreeOnCohort(planRound(members.settings), members.roster, messages) };
}
