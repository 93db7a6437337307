/** Sites that know each other, and a round that some of them do not finish. */
import { createHash, createPrivateKey, createPublicKey, randomBytes, sign } from 'node:crypto';
import {
  type KeysMessage,
  type MaskedMessage,
  PrivacyError,
  type PrivacyErrorCode,
  type RandomWords,
  type Roster,
  SecaggCoordinator,
  type SecaggPlan,
  type SecaggResult,
  type SecaggSettings,
  SecaggSite,
  type SecaggSiteOptions,
  type SharesMessage,
  type SurvivorsMessage,
  type UnmaskMessage,
} from '../../src/index.ts';
import {
  encodeFraction,
  type FixedPoint,
  type RandomFill,
  weightOf,
} from '../../src/secure-aggregation/fixed-point.ts';

export const digestOf = (text: string): string => createHash('sha256').update(text).digest('hex');

type Sign = SecaggSiteOptions['sign'];

/** Identities live longer than rounds, so they are made once. */
const identities = new Map<string, { publicKey: string; sign: Sign }>();

function identityOf(site: string): { publicKey: string; sign: Sign } {
  let identity = identities.get(site);
  if (identity === undefined) {
    // Not by generateKeyPairSync: see createKeyPair.
    const der = Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), randomBytes(32)]);
    const privateKey = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
    identity = {
      publicKey: createPublicKey(privateKey).export({ format: 'jwk' })['x']!,
      sign: (bytes) => new Uint8Array(sign(null, bytes, privateKey)),
    };
    identities.set(site, identity);
  }
  return identity;
}

export interface Federation {
  readonly ids: readonly string[];
  readonly settings: SecaggSettings;
  readonly roster: Roster;
  site(id: string, options?: Partial<SecaggSiteOptions>): SecaggSite;
  coordinator(): SecaggCoordinator;
  sign(id: string): Sign;
}

/** A federation of `n` sites, named s00, s01 …, with vectors of 5 values unless told otherwise. */
export function federation(n: number, settings: Partial<SecaggSettings> = {}, toySign?: Sign): Federation {
  const ids = Array.from({ length: n }, (_, i) => `s${String(i).padStart(2, '0')}`);
  const roster = new Map(ids.map((id) => [id, toySign ? `key of ${id}` : identityOf(id).publicKey]));
  const all: SecaggSettings = {
    run: 'run-1',
    round: 1,
    attempt: 'try-1',
    cohort: ids,
    parameters: 5,
    fixedPoint: { clippingRange: 1, steps: 2 ** 12, maxWeight: 100 },
    modelDigest: digestOf('model'),
    configurationDigest: digestOf('configuration'),
    ...settings,
  };
  const signOf = (id: string) => toySign ?? identityOf(id).sign;
  return {
    ids,
    settings: all,
    roster,
    site: (id, options) =>
      new SecaggSite({
        settings: all,
        site: id,
        roster,
        sign: signOf(id),
        random: bytesOf(id),
        ...options,
      }),
    coordinator: () => new SecaggCoordinator({ settings: all, roster }),
    sign: signOf,
  };
}

/** Words that are the same each time, for what is to be computed twice (a linear congruence, high bits first). */
export function wordsOf(text: string): RandomWords {
  let state = createHash('sha256').update(text).digest().readUInt32LE();
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state;
  };
}

/** Bytes that are the same each time. */
export function bytesOf(text: string): RandomFill {
  const next = wordsOf(text);
  return (bytes) =>
    bytes.forEach((_, i) => {
      bytes[i] = next() >>> 24;
    });
}

/** What a value becomes, in plain JavaScript; `bits` are 16 random ones. */
export function plainWord(value: number, weight: number, fixedPoint: FixedPoint, bits: number): number {
  const { clippingRange, steps } = fixedPoint;
  const clipped = Math.min(Math.max(value, -clippingRange), clippingRange);
  // Rounded to 2^-16: next to 2^36, that is the last bit of a double.
  const level = clipped * (steps / (2 * clippingRange)) + (2 ** 36 + steps / 2) - 2 ** 36;
  return Math.floor(level + bits / 2 ** 16) * weight;
}

/** The update of a site: values in and a little beyond the range. */
export function updateOf(id: string, parameters: number): Float32Array {
  const next = wordsOf(`update of ${id}`);
  return Float32Array.from({ length: parameters }, () => (next() / 2 ** 31 - 1) * 1.1);
}

export const examplesOf = (id: string): number => 1 + (Number.parseInt(id.slice(1), 10) % 9);

/** What the sum must be, to the bit: the plain sum of the plain words. */
export function plainSum(
  plan: SecaggPlan,
  survivors: readonly string[],
): Pick<SecaggResult, 'sums' | 'totalWeight' | 'clippedFraction'> {
  const sums = new Uint32Array(plan.parameters);
  let totalWeight = 0;
  let clipped = 0;
  for (const id of survivors) {
    const weight = weightOf(examplesOf(id), plan.fixedPoint);
    const update = updateOf(id, plan.parameters);
    const random = new Uint16Array(plan.parameters);
    bytesOf(id)(new Uint8Array(random.buffer));
    update.forEach((value, i) => {
      sums[i]! += plainWord(value, weight, plan.fixedPoint, random[i]!);
    });
    const clips = update.filter((value) => Math.abs(value) > plan.fixedPoint.clippingRange).length;
    totalWeight += weight;
    clipped += encodeFraction(clips / plan.parameters, plan.fixedPoint);
  }
  return { sums, totalWeight, clippedFraction: clipped / plan.fixedPoint.steps / survivors.length };
}

/** The stages, and at which one a site falls silent; `stays` for one that does not. */
export const STAGES = ['keys', 'shares', 'masked', 'signature', 'unmask', 'stays'] as const;
export type Pattern = ReadonlyMap<string, (typeof STAGES)[number]>;

/** All that the coordinator got in a round. */
export interface Transcript {
  readonly keys: KeysMessage[];
  readonly shares: SharesMessage[];
  readonly masked: MaskedMessage[];
  readonly signatures: SurvivorsMessage[];
  readonly unmask: UnmaskMessage[];
  result?: SecaggResult | undefined;
  error?: unknown;
}

/** Plays one round in which sites fall silent as `pattern` says; what ends it early is in `error`. */
export function play(members: Federation, pattern: Pattern): Transcript {
  const { ids } = members;
  const sites = new Map(ids.map((id) => [id, members.site(id)]));
  const coordinator = members.coordinator();
  const played: Transcript = { keys: [], shares: [], masked: [], signatures: [], unmask: [] };
  const speaking = (stage: number) => ids.filter((id) => STAGES.indexOf(pattern.get(id) ?? 'stays') > stage);
  try {
    for (const id of speaking(0)) {
      const message = sites.get(id)!.advertiseKeys();
      played.keys.push(message);
      coordinator.receiveKeys(message);
    }
    const keys = coordinator.closeKeys();
    for (const id of speaking(1)) {
      const message = sites.get(id)!.shareKeys(keys);
      played.shares.push(message);
      coordinator.receiveShares(message);
    }
    const deliveries = coordinator.closeShares();
    for (const id of speaking(2)) {
      const update = updateOf(id, members.settings.parameters);
      const { message } = sites.get(id)!.mask(deliveries.get(id)!, [update], examplesOf(id));
      played.masked.push(message);
      coordinator.receiveMasked(message);
    }
    const survivors = coordinator.closeMasked();
    for (const id of speaking(3)) {
      const message = sites.get(id)!.signSurvivors(survivors);
      played.signatures.push(message);
      coordinator.receiveSignature(message);
    }
    const request = coordinator.closeSignatures();
    for (const id of speaking(4)) {
      const message = sites.get(id)!.unmask(request);
      played.unmask.push(message);
      coordinator.receiveUnmask(message);
    }
    played.result = coordinator.finish();
  } catch (error) {
    played.error = error;
  }
  return played;
}

/**
 * The same round once more, had these sites fallen silent at the last two stages: what the others said up to then is the
 * same, so it is only played to a new coordinator.
 */
export function playEnding(members: Federation, whole: Transcript, pattern: Pattern): Transcript {
  const coordinator = members.coordinator();
  const spoke = (stage: number) => (message: { site: string }) =>
    STAGES.indexOf(pattern.get(message.site) ?? 'stays') > stage;
  const signatures = whole.signatures.filter(spoke(3));
  const played: Transcript = { ...whole, signatures, unmask: [], result: undefined, error: undefined };
  for (const message of whole.keys) coordinator.receiveKeys(message);
  coordinator.closeKeys();
  for (const message of whole.shares) coordinator.receiveShares(message);
  coordinator.closeShares();
  for (const message of whole.masked) coordinator.receiveMasked(message);
  coordinator.closeMasked();
  for (const message of signatures) coordinator.receiveSignature(message);
  try {
    coordinator.closeSignatures();
    played.unmask.push(...whole.unmask.filter(spoke(4)));
    for (const message of played.unmask) coordinator.receiveUnmask(message);
    played.result = coordinator.finish();
  } catch (error) {
    played.error = error;
  }
  return played;
}

/** Of each secret, in how many shares it was told: `seed of s01`, `mask key of s02` … */
export function sharesTold(played: Transcript): Map<string, number> {
  const told = new Map<string, number>();
  const count = (name: string) => told.set(name, (told.get(name) ?? 0) + 1);
  for (const { seedShares, maskKeyShares } of played.unmask) {
    for (const { of } of seedShares) count(`seed of ${of}`);
    for (const { of } of maskKeyShares) count(`mask key of ${of}`);
  }
  return told;
}

/** The code of the PrivacyError that `run` throws; undefined when it throws none, anything else goes on. */
export function codeOf(run: () => unknown): PrivacyErrorCode | undefined {
  try {
    run();
    return undefined;
  } catch (error) {
    if (error instanceof PrivacyError) return error.code;
    throw error;
  }
}
