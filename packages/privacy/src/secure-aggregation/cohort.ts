/**
 * Those who have shown their keys, and what follows from that list for everybody: the graph, the bytes that are signed,
 * and the key of each mask and envelope. All of these hold the digest of the whole list, so that sites which were told
 * different lists, settings or models get nothing out of each other.
 */
import { createHash } from 'node:crypto';
import { PrivacyError } from '../errors.ts';
import { type Field, fieldBytes, fieldDigest } from './fields.ts';
import { completeGraph, hararyGraph } from './graph.ts';
import { deriveKey, isSigned, KEY_BYTES, type KeyPair, SIGNATURE_BYTES } from './keys.ts';
import type { Mask } from './masks.ts';
import { checkBytes, checkList, faulty, type KeysMessage } from './messages.ts';
import type { SecaggPlan } from './plan.ts';

/** Public keys that sites are known by: id → base64url of the 32 raw bytes of an Ed25519 key. */
export type Roster = ReadonlyMap<string, string>;

export interface Cohort {
  /** Ascending. */
  readonly ids: readonly string[];
  readonly idSet: ReadonlySet<string>;
  readonly keys: ReadonlyMap<string, KeysMessage>;
  readonly digest: Uint8Array;
  /** With whom a site shares masks. */
  neighbours(id: string): readonly string[];
  /** Who holds shares of a site's secrets; the first has the share of x = 1. */
  holders(id: string): readonly string[];
}

/** The bytes that a site signs to advertise its keys. */
export function keysStatement(plan: SecaggPlan, message: Omit<KeysMessage, 'signature'>): Buffer {
  const { site, channelKey, maskKey, seedCommitment } = message;
  return fieldBytes('keys', plan.run, plan.round, plan.attempt, site, channelKey, maskKey, seedCommitment);
}

/** What a site commits itself to by its keys: nobody can make others believe in another seed. */
export function seedCommitment(plan: SecaggPlan, site: string, seed: Uint8Array): Uint8Array {
  return fieldDigest('seed', plan.run, plan.round, site, seed);
}

/** Throws PrivacyError FED_PRIVACY_SECAGG_MESSAGE unless `message` is one of the cohort's and has all its fields. */
export function checkKeysMessage(plan: SecaggPlan, message: KeysMessage): void {
  const { site } = message;
  if (typeof site !== 'string' || !plan.cohort.includes(site)) throw faulty(site, 'it is not in the cohort');
  checkBytes(message.channelKey, KEY_BYTES, 'its channel key', site);
  checkBytes(message.maskKey, KEY_BYTES, 'its mask key', site);
  checkBytes(message.seedCommitment, KEY_BYTES, 'its commitment', site);
  checkBytes(message.signature, SIGNATURE_BYTES, 'its signature', site);
}

/**
 * Throws PrivacyError FED_PRIVACY_SECAGG_SIGNATURE unless `message`, whose fields have been checked, is signed with the key
 * that `roster` knows its site by, for this try of this run's round.
 */
export function checkKeysSignature(plan: SecaggPlan, roster: Roster, message: KeysMessage): void {
  const { site } = message;
  const pinned = roster.get(site);
  if (pinned === undefined)
    throw new PrivacyError(
      'FED_PRIVACY_SECAGG_SIGNATURE',
      `site '${site}' is not in the roster that is pinned here`,
      { site },
    );
  if (!isSigned(pinned, keysStatement(plan, message), message.signature))
    throw new PrivacyError(
      'FED_PRIVACY_SECAGG_SIGNATURE',
      `the round's keys of site '${site}' are not signed with its pinned key for this try of round ${plan.round} of this run`,
      { site },
    );
}

/**
 * Returns the cohort of these keys, whose signatures have been checked. Throws PrivacyError FED_PRIVACY_SECAGG_KEYS when
 * a key is there twice, FED_PRIVACY_SECAGG_TOO_FEW when there are fewer than the threshold.
 */
export function agreeOnCohort(plan: SecaggPlan, roster: Roster, messages: readonly KeysMessage[]): Cohort {
  checkList(messages, plan.cohort.length, 'the list of keys');
  const keys = new Map<string, KeysMessage>();
  const seen = new Map<string, string>();
  const sorted = [...messages].sort((a, b) => (a.site < b.site ? -1 : 1));
  for (const message of sorted) {
    const { site } = message;
    if (keys.has(site)) throw faulty(site, 'its keys are there twice');
    keys.set(site, message);
    const hex = [message.channelKey, message.maskKey].map((key) => Buffer.from(key).toString('hex'));
    for (const key of [...hex, `${roster.get(site)}`]) {
      const other = seen.get(key);
      if (other !== undefined)
        throw new PrivacyError(
          'FED_PRIVACY_SECAGG_KEYS',
          `site '${site}' has a key that site '${other}' has, or the same one twice`,
          { site },
        );
      seen.set(key, site);
    }
  }
  const ids = [...keys.keys()];
  const tooFew = Math.max(plan.threshold, (plan.degree ?? 0) + 1);
  if (ids.length < tooFew)
    throw new PrivacyError(
      'FED_PRIVACY_SECAGG_TOO_FEW',
      `${ids.length} sites have shown their keys, and ${tooFew} are needed`,
    );
  const digest = fieldDigest(
    'cohort',
    plan.digest,
    sorted.map(
      ({ site, channelKey, maskKey, seedCommitment }): Field => [site, channelKey, maskKey, seedCommitment],
    ),
  );
  const graph =
    plan.degree === undefined ? completeGraph(ids.length) : hararyGraph(ringOrder(ids, digest), plan.degree);
  const places = new Map(ids.map((id, i) => [id, i]));
  const named = (indices: readonly number[]) => indices.map((i) => ids[i]!);
  return {
    ids,
    idSet: new Set(ids),
    keys,
    digest,
    neighbours: (id) => named(graph.neighbours(places.get(id)!)),
    holders: (id) => named(graph.holders(places.get(id)!)),
  };
}

/** The key of an envelope, and what it is bound to. */
export interface EnvelopeKey {
  readonly key: Uint8Array;
  readonly associated: Uint8Array;
}

/**
 * The keys of the envelopes between `site`, which has this channel key, and `peer`: each direction has its own. Undefined
 * for a useless public key.
 */
export function envelopeKeys(
  cohort: Cohort,
  site: string,
  channelKey: KeyPair,
  peer: string,
): { readonly sent: EnvelopeKey; readonly received: EnvelopeKey } | undefined {
  const shared = channelKey.agree(cohort.keys.get(peer)!.channelKey);
  if (shared === undefined) return undefined;
  const direction = (from: string, to: string) => {
    const associated = fieldBytes('shares', cohort.digest, from, to);
    return { key: deriveKey(shared, associated), associated };
  };
  const keys = { sent: direction(site, peer), received: direction(peer, site) };
  shared.fill(0);
  return keys;
}

/** The mask by which `site` hides its update from everybody, from its seed. */
export function ownMask(plan: SecaggPlan, cohort: Cohort, site: string, seed: Uint8Array): Mask {
  return { key: deriveKey(seed, fieldBytes('own mask', cohort.digest, plan.modelBinding, site)), sign: 1 };
}

/**
 * The mask that `site` applies for `peer`, which applies the same with the other sign. `owner` is the one of them whose
 * private mask key is known. Undefined for a useless public key.
 */
export function sharedMask(
  plan: SecaggPlan,
  cohort: Cohort,
  site: string,
  peer: string,
  owner: { readonly site: string; readonly maskKey: KeyPair },
): Mask | undefined {
  const other = owner.site === site ? peer : site;
  const shared = owner.maskKey.agree(cohort.keys.get(other)!.maskKey);
  if (shared === undefined) return undefined;
  const [low, high] = site < peer ? [site, peer] : [peer, site];
  const key = deriveKey(shared, fieldBytes('shared mask', cohort.digest, plan.modelBinding, low, high));
  shared.fill(0);
  return { key, sign: site === low ? 1 : -1 };
}

/** The bytes that a site signs once: who has shared, and whose masked update is in the sum, under which model. */
export function survivorsStatement(
  plan: SecaggPlan,
  cohort: Cohort,
  sharers: readonly string[],
  survivors: readonly string[],
): Buffer {
  return fieldBytes(
    'survivors',
    plan.run,
    plan.round,
    plan.attempt,
    cohort.digest,
    plan.modelBinding,
    sharers,
    survivors,
  );
}

/** An order of the ring that nobody chose: by a hash of each id with everybody's keys. */
function ringOrder(ids: readonly string[], digest: Uint8Array): number[] {
  const ranks = ids.map((id) =>
    createHash('sha256')
      .update(fieldBytes('ring', digest, id))
      .digest('hex'),
  );
  return ids.map((_, i) => i).sort((a, b) => (ranks[a]! < ranks[b]! ? -1 : 1));
}
