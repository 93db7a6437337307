/** Secrets are filled with zeros as soon as nobody needs them: keys.ts hands out the real ones, and they are looked at. */
import { beforeEach, expect, test, vi } from 'vitest';
import type * as Keys from '../../src/secure-aggregation/keys.ts';
import type * as Shamir from '../../src/secure-aggregation/shamir.ts';
import { examplesOf, federation, play, updateOf } from './federation.ts';

/** What was made in this test. */
const made = vi.hoisted(() => ({
  pairs: [] as Keys.KeyPair[],
  keys: [] as Uint8Array[],
  opened: [] as Uint8Array[],
  shares: [] as Uint8Array[],
}));

vi.mock('../../src/secure-aggregation/keys.ts', async (original) => {
  const keys = await original<typeof Keys>();
  const noted = <T>(list: T[], one: T): T => {
    list.push(one);
    return one;
  };
  return {
    ...keys,
    createKeyPair: () => noted(made.pairs, keys.createKeyPair()),
    keyPairOf: (bytes: Uint8Array) => noted(made.pairs, keys.keyPairOf(bytes)),
    deriveKey: (...args: Parameters<typeof keys.deriveKey>) => noted(made.keys, keys.deriveKey(...args)),
    open: (...args: Parameters<typeof keys.open>) => {
      const text = keys.open(...args);
      if (text !== undefined) made.opened.push(text);
      return text;
    },
  };
});

vi.mock('../../src/secure-aggregation/shamir.ts', async (original) => {
  const shamir = await original<typeof Shamir>();
  return {
    ...shamir,
    splitSecret: (...args: Parameters<typeof shamir.splitSecret>) => {
      const shares = shamir.splitSecret(...args);
      made.shares.push(...shares);
      return shares;
    },
  };
});

beforeEach(() => {
  for (const list of Object.values(made)) list.length = 0;
});

const isZero = (bytes: Uint8Array) => bytes.every((byte) => byte === 0);

test('after a round with a drop-out, no private key, mask key, envelope key or opened envelope is left', () => {
  const { result } = play(federation(5), new Map([['s03', 'masked']]));
  expect(result!.survivors.length).toBe(4);
  // Two pairs a site; the coordinator gave back the mask key of s03, once to compare and once to use.
  expect(made.pairs.length).toBe(12);
  const ofDropOut = made.pairs.slice(6, 8);
  const left = made.pairs.filter(({ privateKey }) => !isZero(privateKey));
  // s03 itself is still there, and waits.
  expect(left).toEqual(ofDropOut);
  expect(made.keys.length).toBeGreaterThan(50);
  // Those of the four envelopes that s03 waits for.
  expect(made.keys.filter((key) => !isZero(key)).length).toBe(4);
  // Each of the four survivors has opened what the four others sent.
  expect(made.opened.length).toBe(16);
  expect(made.opened.filter((text) => !isZero(text))).toEqual([]);
  // Five shares of two secrets of each site; the ones of s03 that it keeps itself are those that are left.
  expect(made.shares.length).toBe(50);
  expect(made.shares.filter((share) => !isZero(share)).length).toBe(2);
});

test('a site has no private keys any more once its masked update is made, and none after an abort', () => {
  const members = federation(3);
  const sites = members.ids.map((id) => members.site(id));
  const coordinator = members.coordinator();
  for (const site of sites) coordinator.receiveKeys(site.advertiseKeys());
  const keys = coordinator.closeKeys();
  for (const site of sites) coordinator.receiveShares(site.shareKeys(keys));
  const delivery = coordinator.closeShares().get('s00')!;
  const privateKeys = made.pairs.map(({ privateKey }) => privateKey);
  expect(privateKeys.map(isZero)).toEqual([false, false, false, false, false, false]);
  sites[0]!.mask(delivery, [updateOf('s00', 5)], examplesOf('s00'));
  expect(privateKeys.map(isZero)).toEqual([true, true, false, false, false, false]);
  expect(made.keys.filter((key) => !isZero(key)).length).toBe(4);
  sites[1]!.abort();
  expect(made.keys.filter((key) => !isZero(key)).length).toBe(2);
  expect(privateKeys.map(isZero)).toEqual([true, true, true, true, false, false]);
  expect(() => sites[2]!.mask({ sharers: [], envelopes: [] }, [updateOf('s02', 5)], 1)).toThrow();
  expect(privateKeys.every(isZero)).toBe(true);
  expect(made.keys.every(isZero)).toBe(true);
});
