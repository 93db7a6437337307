/** Updates that no party has in memory as a whole: what comes piece by piece is what would come at once. */
import { beforeEach, describe, expect, test, vi } from 'vitest';
import type * as Keys from '../../src/secure-aggregation/keys.ts';
import type * as Masks from '../../src/secure-aggregation/masks.ts';
import { codeOf, examplesOf, federation, plainSum, updateOf } from './federation.ts';

/** The keys that were derived, and the masks that are open. */
const made = vi.hoisted(() => ({ keys: [] as Uint8Array[], open: 0 }));

vi.mock('../../src/secure-aggregation/keys.ts', async (original) => {
  const keys = await original<typeof Keys>();
  return {
    ...keys,
    deriveKey: (...args: Parameters<typeof keys.deriveKey>) => {
      const key = keys.deriveKey(...args);
      made.keys.push(key);
      return key;
    },
  };
});

vi.mock('../../src/secure-aggregation/masks.ts', async (original) => {
  const masks = await original<typeof Masks>();
  return {
    ...masks,
    openMasks: (...args: Parameters<typeof masks.openMasks>) => {
      const stream = masks.openMasks(...args);
      made.open++;
      let isOpen = true;
      return {
        ...stream,
        end() {
          if (isOpen) made.open--;
          isOpen = false;
          stream.end();
        },
      };
    },
  };
});

beforeEach(() => {
  made.keys.length = 0;
  made.open = 0;
});

/** Of three sites, the two others still have the keys of the two envelopes that they wait for, and nothing else is left. */
const erased = () =>
  made.open === 0 && made.keys.filter((key) => key.some((byte) => byte !== 0)).length === 4;

/** Three sites up to the masked updates, of 12 + 5 bits: 3 · 9 · 4096 < 2^17, and 17 · (parameters + 2) is no whole byte. */
function masking(parameters: number) {
  const members = federation(3, {
    parameters,
    fixedPoint: { clippingRange: 1, steps: 2 ** 12, maxWeight: 9 },
  });
  const sites = members.ids.map((id) => members.site(id));
  const coordinator = members.coordinator();
  for (const site of sites) coordinator.receiveKeys(site.advertiseKeys());
  const keys = coordinator.closeKeys();
  for (const site of sites) coordinator.receiveShares(site.shareKeys(keys));
  const deliveries = coordinator.closeShares();
  const begin = (i: number) => sites[i]!.beginMask(deliveries.get(`s0${i}`)!, examplesOf(`s0${i}`));
  const unmask = () => {
    const survivors = coordinator.closeMasked();
    for (const site of sites) coordinator.receiveSignature(site.signSurvivors(survivors));
    const request = coordinator.closeSignatures();
    for (const site of sites) coordinator.receiveUnmask(site.unmask(request));
    return coordinator.finish();
  };
  return { members, sites, coordinator, deliveries, begin, unmask };
}

/** Cuts of many lengths, short and long, none of which fits the pieces inside. */
function cut<T extends Float32Array | Uint8Array>(all: T, first: number): T[] {
  const parts: T[] = [];
  for (let start = 0, length = first; start < all.length; start += length, length = (length * 7) % 40_009)
    parts.push(all.subarray(start, start + length) as T);
  return parts;
}

/** All that a masker gives for an update, each answer copied before the next call writes over it. */
function masked(masker: ReturnType<ReturnType<typeof masking>['begin']>, parts: readonly Float32Array[]) {
  const answers = parts.map((part) => masker.write(part).slice());
  const { packed, clippedFraction } = masker.finish();
  return { packed: new Uint8Array(Buffer.concat([...answers, packed])), clippedFraction, answers };
}

describe('an update in pieces', () => {
  // One piece of 16,384 words, one that is just full, one more value, and several.
  test.each([1, 16_382, 16_383, 16_384, 100_000])('of %i values in all gives the exact sum', (parameters) => {
    const { members, coordinator, sites, deliveries, begin, unmask } = masking(parameters);
    members.ids.forEach((id, i) => {
      const update = updateOf(id, parameters);
      if (i === 0) {
        // Among one that comes as a whole.
        coordinator.receiveMasked(sites[0]!.mask(deliveries.get(id)!, [update], examplesOf(id)).message);
        return;
      }
      const { packed, clippedFraction } = masked(begin(i), cut(update, i));
      expect(packed.length).toBe(coordinator.plan.packedBytes);
      const clips = update.filter((value) => Math.abs(value) > 1).length;
      expect(clippedFraction).toBe(clips / parameters);
      const receiver = coordinator.beginMasked(id, packed.length);
      for (const bytes of cut(packed, 3 * i)) receiver.write(bytes);
      receiver.finish();
    });
    expect(unmask()).toMatchObject(plainSum(coordinator.plan, members.ids));
  });

  test('comes out as it goes in: never more than a piece waits', () => {
    const { begin } = masking(100_000);
    const parts = Array.from({ length: 10 }, () => new Float32Array(10_000));
    const { answers, packed } = masked(begin(0), parts);
    // After 20,000 values one piece of 16,384 is full, of 17 bits each; after 40,000 two; and so on.
    const pieces = [0, 1, 0, 1, 1, 0, 1, 0, 1, 1];
    expect(answers.map(({ length }) => length)).toEqual(pieces.map((count) => (count * 16_384 * 17) / 8));
    expect(packed.length).toBe(Math.ceil((100_002 * 17) / 8));
  });

  test('may go on in turns with those of others in the same process', () => {
    const { members, coordinator, begin, unmask } = masking(50_000);
    const maskers = members.ids.map((_, i) => begin(i));
    const receivers = members.ids.map((id) => coordinator.beginMasked(id, coordinator.plan.packedBytes));
    const updates = members.ids.map((id) => cut(updateOf(id, 50_000), 20_000));
    for (let turn = 0; turn < updates[0]!.length; turn++)
      for (const i of [0, 1, 2]) receivers[i]!.write(maskers[i]!.write(updates[i]![turn]!));
    for (const i of [2, 0, 1]) {
      receivers[i]!.write(maskers[i]!.finish().packed);
      receivers[i]!.finish();
    }
    expect(unmask()).toMatchObject(plainSum(coordinator.plan, members.ids));
  });
});

describe('a masker', () => {
  test('leaves no mask and no key when it is finished', () => {
    const { begin, sites } = masking(20_000);
    const masker = begin(0);
    masker.write(new Float32Array(20_000));
    expect(made.open).toBe(1);
    masker.finish();
    expect(erased()).toBe(true);
    // And what comes late changes nothing: the site goes on.
    masker.abort();
    expect(codeOf(() => masker.write(new Float32Array(1)))).toBe('FED_PRIVACY_SECAGG_STAGE');
    expect(codeOf(() => masker.finish())).toBe('FED_PRIVACY_SECAGG_STAGE');
    expect(codeOf(() => sites[0]!.signSurvivors(['s00', 's01', 's02']))).toBeUndefined();
  });

  test.each([
    ['a value more', (masker) => masker.write(new Float32Array(21)), 'an update of 41 values or more'],
    ['a value less', (masker) => masker.finish(), 'an update of 20 values, where the plan says 40'],
    [
      'no number',
      (masker) => {
        masker.write(new Float32Array(20).fill(Number.NaN, 3, 4));
        masker.finish();
      },
      'a value that is not finite',
    ],
    ['an abort', (masker) => masker.abort(), undefined],
  ] as [string, (masker: ReturnType<ReturnType<typeof masking>['begin']>) => unknown, string | undefined][])(
    'leaves none either after %s, and its site answers nothing more',
    (_, end, message) => {
      const { begin, sites } = masking(40);
      const masker = begin(0);
      masker.write(new Float32Array(20));
      expect(made.open).toBe(1);
      if (message === undefined) end(masker);
      else expect(() => end(masker)).toThrow(message);
      expect(erased()).toBe(true);
      for (const ask of [
        () => masker.write(new Float32Array(1)),
        () => masker.finish(),
        () => sites[0]!.signSurvivors(['s00', 's01', 's02']),
      ])
        expect(codeOf(ask)).toBe('FED_PRIVACY_SECAGG_STAGE');
    },
  );

  test('is ended by its site, is there once, and must be finished before the next stage', () => {
    const { begin, sites, deliveries } = masking(40);
    const masker = begin(0);
    expect(codeOf(() => begin(0))).toBe('FED_PRIVACY_SECAGG_STAGE');
    expect(codeOf(() => sites[0]!.mask(deliveries.get('s00')!, [new Float32Array(40)], 1))).toBe(
      'FED_PRIVACY_SECAGG_STAGE',
    );
    expect(codeOf(() => sites[0]!.signSurvivors(['s00', 's01', 's02']))).toBe('FED_PRIVACY_SECAGG_STAGE');
    sites[0]!.abort();
    expect(erased()).toBe(true);
    expect(codeOf(() => masker.write(new Float32Array(1)))).toBe('FED_PRIVACY_SECAGG_STAGE');
  });
});

describe('a masked update that the coordinator reads in pieces', () => {
  const code = 'FED_PRIVACY_SECAGG_MESSAGE';
  const ready = () => {
    const round = masking(20_000);
    const updates = [0, 1, 2].map((i) => masked(round.begin(i), [updateOf(`s0${i}`, 20_000)]).packed);
    const read = (i: number) => {
      const receiver = round.coordinator.beginMasked(`s0${i}`, updates[i]!.length);
      receiver.write(updates[i]!);
      receiver.finish();
    };
    return { ...round, updates, read };
  };

  test('is refused before it begins when it has another size, is the second, or is of nobody', () => {
    const { members, coordinator, updates, read, unmask } = ready();
    const { length } = updates[0]!;
    expect(codeOf(() => coordinator.beginMasked('s00', length - 1))).toBe(code);
    expect(codeOf(() => coordinator.beginMasked('s00', Number.NaN))).toBe(code);
    expect(codeOf(() => coordinator.beginMasked('nobody', length))).toBe(code);
    read(0);
    expect(codeOf(() => coordinator.beginMasked('s00', length))).toBe(code);
    expect(codeOf(() => coordinator.receiveMasked({ site: 's00', packed: updates[0]! }))).toBe(code);
    const wrong = updates[1]!.slice();
    // 17 · 20,002 bits are 2 more than whole bytes: 6 bits belong to no value.
    wrong[wrong.length - 1]! |= 4;
    expect(codeOf(() => coordinator.receiveMasked({ site: 's01', packed: wrong }))).toBe(code);
    read(1);
    read(2);
    // Nothing of what was refused is in the sum.
    expect(unmask()).toMatchObject(plainSum(coordinator.plan, members.ids));
  });

  test.each([
    ['too few bytes', (bytes: Uint8Array) => [bytes.subarray(1)]],
    ['too many bytes', (bytes: Uint8Array) => [bytes, new Uint8Array(1)]],
    ['bits that belong to no value', (bytes: Uint8Array) => [bytes.subarray(0, -1), Uint8Array.of(4)]],
  ])('that has %s is refused in its site’s name, and ends the round', (_, pieces) => {
    const { coordinator, updates, read } = ready();
    read(0);
    read(1);
    const receiver = coordinator.beginMasked('s02', updates[2]!.length);
    const all = () => {
      for (const bytes of pieces(updates[2]!)) receiver.write(bytes);
      receiver.finish();
    };
    expect(all).toThrow(expect.objectContaining({ code, site: 's02' }));
    // The others would be enough.
    expect(() => coordinator.closeMasked()).toThrow('s02');
    expect(codeOf(() => coordinator.closeMasked())).toBe('FED_PRIVACY_SECAGG_STAGE');
    expect(codeOf(() => receiver.write(new Uint8Array(0)))).toBe('FED_PRIVACY_SECAGG_STAGE');
  });

  test('counts once it is finished: begun and not finished, it ends the round', () => {
    const { coordinator, updates, read } = ready();
    read(0);
    read(1);
    const receiver = coordinator.beginMasked('s02', updates[2]!.length);
    receiver.write(updates[2]!);
    expect(codeOf(() => coordinator.beginMasked('s02', updates[2]!.length))).toBe(code);
    expect(codeOf(() => coordinator.closeMasked())).toBe(code);
    expect(codeOf(() => receiver.finish())).toBe('FED_PRIVACY_SECAGG_STAGE');
  });

  test('takes nothing more once it is finished', () => {
    const { coordinator, updates } = ready();
    const receiver = coordinator.beginMasked('s00', updates[0]!.length);
    receiver.write(updates[0]!);
    receiver.finish();
    expect(codeOf(() => receiver.write(new Uint8Array(0)))).toBe(code);
    expect(codeOf(() => receiver.finish())).toBe(code);
  });
});
