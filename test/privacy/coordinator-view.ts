/**
 * What a coordinator sees of one update under secure aggregation: fixed-point words with a mask added modulo 2^32, the
 * keystream of AES-256 in counter mode under a key that the coordinator has not.
 */
import { SecaggSite } from '@tributary/privacy';
import { createSigningKey, textToBytes } from '@tributary/shared-protocol';

/** Fixed point: steps a unit. An update's numbers are far below 2^8, so that a sum over many sites can't overflow. */
const STEPS = 2 ** 20;

/** The words that a site sends for its update. */
export type CoordinatorView = (update: ArrayLike<number>) => Uint32Array;

/** A site's masked upload in a round of three; each call has keys of its own. */
export const maskedView: CoordinatorView = (update) => {
  const cohort = ['a', 'b', 'c'];
  const keys = new Map(cohort.map((id) => [id, createSigningKey()]));
  const settings = {
    run: 'audit',
    round: 1,
    attempt: 'try-1',
    cohort,
    parameters: update.length,
    // 2^20 steps a unit, and words of 32 bits: the sum of three is below 2^32.
    fixedPoint: { clippingRange: 512, steps: 2 ** 30, maxWeight: 1 },
    modelDigest: '0'.repeat(64),
    configurationDigest: '0'.repeat(64),
  };
  const roster = new Map(cohort.map((id) => [id, keys.get(id)!.publicKey]));
  const sites = cohort.map(
    (site) =>
      new SecaggSite({
        settings,
        site,
        roster,
        sign: (bytes) => textToBytes(keys.get(site)!.signBytes(bytes)),
      }),
  );
  const advertised = sites.map((site) => site.advertiseKeys());
  const shares = sites.map((site) => site.shareKeys(advertised));
  const envelopes = shares.flatMap(({ site, envelopes }) =>
    envelopes.filter(({ to }) => to === 'a').map(({ sealed }) => ({ from: site, sealed })),
  );
  const { message } = sites[0]!.mask({ sharers: cohort, envelopes }, [Float32Array.from(update)], 1);
  const bytes = Uint8Array.from(message.packed);
  return new Uint32Array(bytes.buffer).subarray(0, update.length);
};

/** The same without a mask: what the tests of the attacks on masked words are compared with. */
export const plainView: CoordinatorView = (update) => toWords(update);

/** Words read as if they were not masked: numbers in the update's unit. */
export function asNumbers(words: Uint32Array): Float64Array {
  return Float64Array.from(words, (word) => (word | 0) / STEPS);
}

function toWords(update: ArrayLike<number>): Uint32Array {
  return Uint32Array.from(update, (value) => Math.round(value * STEPS) >>> 0);
}
