/** What sites and coordinator say to each other in one round of secure aggregation, in the order in which they do. */
import { PrivacyError } from '../errors.ts';

/** A site's public keys of this round, signed with the key that everybody knows it by. */
export interface KeysMessage {
  readonly site: string;
  /** X25519, 32 bytes: for envelopes. */
  readonly channelKey: Uint8Array;
  /** X25519, 32 bytes: for the masks with other sites. */
  readonly maskKey: Uint8Array;
  /** SHA-256 that the seed of the site's own mask has to fit. */
  readonly seedCommitment: Uint8Array;
  /** Ed25519, 64 bytes. */
  readonly signature: Uint8Array;
}

/** A site's shares of its secrets, each sealed for the one that holds it. */
export interface SharesMessage {
  readonly site: string;
  readonly envelopes: readonly { readonly to: string; readonly sealed: Uint8Array }[];
}

/** The envelopes for one site, and the ids of all who sent theirs, ascending. */
export interface Delivery {
  readonly sharers: readonly string[];
  readonly envelopes: readonly { readonly from: string; readonly sealed: Uint8Array }[];
}

/** The masked update: `packedBytes` of the plan. */
export interface MaskedMessage {
  readonly site: string;
  readonly packed: Uint8Array;
}

/** A site's signature over the set of those whose masked update is in the sum. Ed25519, 64 bytes. */
export interface SurvivorsMessage {
  readonly site: string;
  readonly signature: Uint8Array;
}

/** What makes a site give shares: the survivors, ascending, and enough signatures over the same. */
export interface UnmaskRequest {
  readonly survivors: readonly string[];
  readonly signatures: readonly SurvivorsMessage[];
}

export interface Share {
  /** Whose secret it is a share of. */
  readonly of: string;
  readonly share: Uint8Array;
}

/** Shares of the own masks of survivors and of the mask keys of those who dropped out: never both of one site. */
export interface UnmaskMessage {
  readonly site: string;
  readonly seedShares: readonly Share[];
  readonly maskKeyShares: readonly Share[];
}

/** Returns `value` when it is so many bytes; throws FED_PRIVACY_SECAGG_MESSAGE in the name of `site` when not. */
export function checkBytes(value: unknown, length: number, what: string, site: string): Uint8Array {
  if (!(value instanceof Uint8Array) || value.length !== length)
    throw faulty(site, `${what} is not ${length} bytes`);
  return value;
}

/** Throws FED_PRIVACY_SECAGG_MESSAGE unless `value` is a list of at most `limit` objects. */
export function checkList(value: unknown, limit: number, what: string, site?: string): void {
  const isList =
    Array.isArray(value) && value.every((entry: unknown) => typeof entry === 'object' && entry !== null);
  if (!isList || value.length > limit)
    throw faulty(site, `${what} is not a list of at most ${limit} entries`);
}

/** Throws FED_PRIVACY_SECAGG_SETS unless `value` is a list of different ids of `known`, ascending. */
export function checkIds(value: unknown, known: ReadonlySet<string>, what: string): void {
  if (!Array.isArray(value)) throw new PrivacyError('FED_PRIVACY_SECAGG_SETS', `${what}: not a list of ids`);
  value.forEach((id: unknown, i) => {
    if (typeof id !== 'string' || !known.has(id))
      throw new PrivacyError('FED_PRIVACY_SECAGG_SETS', `${what}: '${String(id)}' can't be among them`);
    if (i > 0 && value[i - 1] >= id)
      throw new PrivacyError(
        'FED_PRIVACY_SECAGG_SETS',
        `${what}: '${id}' is there twice, or not in its place`,
      );
  });
}

/** The error of a message that its sender must not send. */
export function faulty(site: string | undefined, problem: string): PrivacyError {
  return new PrivacyError(
    'FED_PRIVACY_SECAGG_MESSAGE',
    site === undefined ? problem : `from site '${site}': ${problem}`,
    site === undefined ? {} : { site },
  );
}
