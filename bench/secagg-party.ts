/** One part of a round of secure aggregation, measured in this process: see secagg.ts. */
import {
  createCipheriv,
  createPrivateKey,
  createPublicKey,
  randomBytes,
  randomFillSync,
  sign,
} from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { SecaggCoordinator, type SecaggSettings, SecaggSite, valueSteps } from '@tributary/privacy';
import {
  agreeOnCohort,
  envelopeKeys,
  keysStatement,
  ownMask,
  seedCommitment,
  survivorsStatement,
} from '../packages/privacy/src/secure-aggregation/cohort.ts';
import { createKeyPair, seal } from '../packages/privacy/src/secure-aggregation/keys.ts';
import { type Mask, release } from '../packages/privacy/src/secure-aggregation/masks.ts';
import { createPackedSum } from '../packages/privacy/src/secure-aggregation/packed-sum.ts';
import { planRound, type SecaggPlan } from '../packages/privacy/src/secure-aggregation/plan.ts';
import { splitSecret } from '../packages/privacy/src/secure-aggregation/shamir.ts';
import { createMaskedPacker } from '../packages/privacy/src/secure-aggregation/update-masker.ts';

export type SecaggPart =
  | 'plain site'
  | 'site'
  | 'plain coordinator'
  | 'coordinator'
  | 'keystream'
  | 'released keystream';

export interface SecaggMeasure {
  readonly seconds: number;
  /** Resident bytes, before the measured work and at its largest. */
  readonly baseBytes: number;
  readonly peakBytes: number;
  readonly bits: number;
  readonly packedBytes: number;
  /** All that a site sends in a round: arrays and ids. */
  readonly uploadBytes: number;
}

interface Setup {
  readonly part: SecaggPart;
  readonly sites: number;
  readonly parameters: number;
}

const PIECE_WORDS = 16_384;
const WEIGHT = 7;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
const setup = JSON.parse(process.argv[2]!) as Setup;
// Once over a small update, so that the code is compiled when it counts.
measure({ ...setup, parameters: 300_000, sites: Math.min(setup.sites, 10) });
process.send!({ type: 'measured', value: measure(setup) });

function measure({ part, sites, parameters }: Setup): SecaggMeasure {
  const settings: SecaggSettings = {
    run: 'bench',
    round: 1,
    attempt: 'try-1',
    cohort: Array.from({ length: sites }, (_, i) => `site-${i}`),
    parameters,
    fixedPoint: { clippingRange: 1, steps: valueSteps(16), maxWeight: 100 },
    modelDigest: '0'.repeat(64),
    configurationDigest: '0'.repeat(64),
  };
  const { fixedPoint, packedBytes } = planRound(settings);
  const clock = createClock();
  let uploadBytes = 0;
  if (part === 'keystream') keystream(settings, clock, () => {});
  else if (part === 'released keystream') keystream(settings, clock, release);
  else if (part === 'plain site') plainSite(settings, clock);
  else if (part === 'plain coordinator') plainCoordinator(settings, clock);
  else if (part === 'site') uploadBytes = secureSite(settings, clock);
  else secureCoordinator(settings, clock);
  return { ...clock.read(), bits: fixedPoint.bits, packedBytes, uploadBytes };
}

/** What the ciphers of all masks of a site take, whatever is done with what they give. */
function keystream(settings: SecaggSettings, clock: Clock, drop: (bytes: Buffer) => void): void {
  const { words } = planRound(settings);
  const zeros = new Uint8Array(PIECE_WORDS * 4);
  const ciphers = settings.cohort.map(() =>
    createCipheriv('aes-256-ctr', randomBytes(32), new Uint8Array(16)),
  );
  clock.time(() => {
    for (let start = 0; start < words; start += PIECE_WORDS) {
      const piece = zeros.subarray(0, 4 * Math.min(PIECE_WORDS, words - start));
      for (const cipher of ciphers) drop(cipher.update(piece));
    }
  });
}

/** Encodes and packs. */
function plainSite(settings: SecaggSettings, clock: Clock): void {
  const plan = planRound(settings);
  const values = updateOf(plan.parameters);
  clock.time(() => packedUpdate(plan, [], values, WEIGHT));
}

/** Unpacks and sums. */
function plainCoordinator(settings: SecaggSettings, clock: Clock): void {
  const { words, fixedPoint, packedBytes } = planRound(settings);
  const packed = new Uint8Array(packedBytes).fill(0);
  clock.time(() => {
    const sum = createPackedSum(words, fixedPoint.bits);
    for (const id of settings.cohort) {
      const addend = sum.add(id);
      addend.write(packed);
      addend.finish();
    }
    return sum.words;
  });
}

/** The packed update of a site under these masks. */
function packedUpdate(
  plan: SecaggPlan,
  masks: readonly Mask[],
  values: Float32Array,
  weight: number,
): Uint8Array {
  const packer = createMaskedPacker(plan, masks, weight, randomFillSync);
  const packed = new Uint8Array(plan.packedBytes);
  let end = 0;
  for (let start = 0; start < values.length; start += PIECE_WORDS) {
    const bytes = packer.write(values.subarray(start, start + PIECE_WORDS));
    packed.set(bytes, end);
    end += bytes.length;
  }
  packed.set(packer.finish().packed, end);
  packer.end();
  return packed;
}

/** One real site among others that are made up. Returns what it sends in all. */
function secureSite(settings: SecaggSettings, clock: Clock): number {
  const { roster, sign, others, plan } = madeUp(settings);
  const [id] = plan.cohort as [string];
  const values = updateOf(settings.parameters);
  const site = clock.time(
    () => new SecaggSite({ settings, site: id, roster, sign: (bytes) => sign(id, bytes) }),
  );
  const own = clock.time(() => site.advertiseKeys());
  const keys = [own, ...[...others.values()].slice(1).map(({ keys }) => keys)];
  const shares = clock.time(() => site.shareKeys(keys));
  const cohort = agreeOnCohort(plan, roster, keys);
  const envelopes = plan.cohort.slice(1).map((from) => {
    const { channel, shares } = others.get(from)!;
    const { key, associated } = envelopeKeys(cohort, from, channel, id)!.sent;
    return { from, sealed: seal(key, Buffer.concat([shares[0]!, shares[0]!]), associated) };
  });
  const masked = clock.time(() => site.mask({ sharers: plan.cohort, envelopes }, [values], WEIGHT)).message;
  const signature = clock.time(() => site.signSurvivors(plan.cohort));
  const statement = survivorsStatement(plan, cohort, plan.cohort, plan.cohort);
  const signatures = plan.cohort.map((one) => ({ site: one, signature: sign(one, statement) }));
  const unmask = clock.time(() => site.unmask({ survivors: plan.cohort, signatures }));
  return bytesOf([own, shares, masked, signature, unmask]);
}

/**
 * A real coordinator. Masks between sites cancel, so the sum of all updates, each of them zero, under everybody's own mask
 * comes as the first site's, and no bytes but zeros as the others'; the sum is right in the end.
 */
function secureCoordinator(settings: SecaggSettings, clock: Clock): void {
  const { roster, sign, others, plan } = madeUp(settings);
  const { cohort: ids, parameters, fixedPoint } = plan;
  const keys = [...others.values()].map((one) => one.keys);
  const cohort = agreeOnCohort(plan, roster, keys);
  const first = packedUpdate(
    plan,
    ids.map((id) => ownMask(plan, cohort, id, others.get(id)!.seed)),
    new Float32Array(parameters),
    ids.length * WEIGHT,
  );
  const zeros = new Uint8Array(first.length).fill(0);
  const coordinator = new SecaggCoordinator({ settings, roster });
  const stage = <T>(run: () => T) => clock.time(run);
  stage(() => {
    for (const message of keys) coordinator.receiveKeys(message);
    coordinator.closeKeys();
  });
  const shared = ids.map((site) => ({
    site,
    envelopes: ids.filter((to) => to !== site).map((to) => ({ to, sealed: randomBytes(92) })),
  }));
  stage(() => {
    for (const message of shared) coordinator.receiveShares(message);
    coordinator.closeShares();
  });
  stage(() => {
    for (const site of ids) coordinator.receiveMasked({ site, packed: site === ids[0] ? first : zeros });
    coordinator.closeMasked();
  });
  const statement = survivorsStatement(plan, cohort, ids, ids);
  const signatures = ids.map((site) => ({ site, signature: sign(site, statement) }));
  stage(() => {
    for (const message of signatures) coordinator.receiveSignature(message);
    coordinator.closeSignatures();
  });
  const unmask = ids.map((site, i) => ({
    site,
    seedShares: ids.map((of) => ({ of, share: others.get(of)!.shares[i]! })),
    maskKeyShares: [],
  }));
  const { sums, totalWeight } = stage(() => {
    for (const message of unmask) coordinator.receiveUnmask(message);
    return coordinator.finish();
  });
  const zero = (totalWeight * fixedPoint.steps) / 2;
  if (totalWeight !== ids.length * WEIGHT || sums[0] !== zero || sums.at(-1) !== zero)
    throw new Error('the sum is not what it should be');
}

/** Keys, seeds and shares of everybody, without the sites. */
function madeUp(settings: SecaggSettings) {
  const plan = planRound(settings);
  // As DER around random bytes: see createKeyPair.
  const prefix = Buffer.from('302e020100300506032b657004220420', 'hex');
  const identities = new Map(
    plan.cohort.map((id) => {
      const key = Buffer.concat([prefix, randomBytes(32)]);
      return [id, createPrivateKey({ key, format: 'der', type: 'pkcs8' })];
    }),
  );
  const roster = new Map(
    [...identities].map(([id, key]) => [id, createPublicKey(key).export({ format: 'jwk' })['x']!]),
  );
  const signAs = (id: string, bytes: Uint8Array) => new Uint8Array(sign(null, bytes, identities.get(id)!));
  const others = new Map(
    plan.cohort.map((site) => {
      const [channel, mask, seed] = [createKeyPair(), createKeyPair(), new Uint8Array(randomBytes(32))];
      const keys = {
        site,
        channelKey: channel.publicKey,
        maskKey: mask.publicKey,
        seedCommitment: seedCommitment(plan, site, seed),
      };
      const signature = signAs(site, keysStatement(plan, keys));
      const shares = splitSecret(seed, plan.shareThreshold, plan.cohort.length);
      return [site, { channel, seed, shares, keys: { ...keys, signature } }];
    }),
  );
  return { plan, roster, others, sign: signAs };
}

function updateOf(parameters: number): Float32Array {
  const values = new Float32Array(parameters);
  for (let i = 0, state = 1; i < parameters; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    values[i] = state / 2 ** 31;
  }
  return values;
}

interface Clock {
  /** Adds what `work` takes. */
  time<T>(work: () => T): T;
  read(): Pick<SecaggMeasure, 'seconds' | 'baseBytes' | 'peakBytes'>;
}

function createClock(): Clock {
  let seconds = 0;
  let baseBytes = 0;
  return {
    time(work) {
      if (baseBytes === 0) {
        collectGarbage();
        // Linux forgets the peak so far.
        if (process.platform === 'linux') writeFileSync('/proc/self/clear_refs', '5');
        baseBytes = process.memoryUsage.rss();
      }
      const started = performance.now();
      const result = work();
      seconds += (performance.now() - started) / 1000;
      return result;
    },
    read: () => ({ seconds, baseBytes, peakBytes: peakBytes() }),
  };
}

function peakBytes(): number {
  if (process.platform !== 'linux') return process.resourceUsage().maxRSS * 1024;
  const [, kib] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))!;
  return Number(kib) * 1024;
}

function bytesOf(value: unknown): number {
  if (value instanceof Uint8Array) return value.length;
  if (typeof value === 'string') return Buffer.byteLength(value);
  if (typeof value === 'object' && value !== null)
    return Object.values(value).reduce((sum: number, one) => sum + bytesOf(one), 0);
  return 0;
}
