/**
 * A site's part of a round of secure aggregation (Bonawitz et al., 2017, with the consistency round of its active
 * adversary). One object is one round: its keys are new, are used once and are erased. It believes nothing that it is
 * given: what does not fit ends its part in the round, with all secrets erased, and the error says who lied about what.
 */
import { randomFillSync } from 'node:crypto';
import { PrivacyError } from '../errors.ts';
import {
  agreeOnCohort,
  type Cohort,
  checkKeysMessage,
  checkKeysSignature,
  type EnvelopeKey,
  envelopeKeys,
  keysStatement,
  ownMask,
  type Roster,
  seedCommitment,
  sharedMask,
  survivorsStatement,
} from './cohort.ts';
import { type RandomFill, weightOf } from './fixed-point.ts';
import { PIECE_WORDS } from './kernel.ts';
import {
  createKeyPair,
  isSigned,
  KEY_BYTES,
  type KeyPair,
  open,
  SEAL_BYTES,
  SIGNATURE_BYTES,
  seal,
} from './keys.ts';
import type { Mask } from './masks.ts';
import {
  checkBytes,
  checkIds,
  checkList,
  type Delivery,
  faulty,
  type KeysMessage,
  type MaskedMessage,
  type SharesMessage,
  type SurvivorsMessage,
  type UnmaskMessage,
  type UnmaskRequest,
} from './messages.ts';
import { FEWEST_SITES, planRound, type SecaggPlan, type SecaggSettings } from './plan.ts';
import { splitSecret } from './shamir.ts';
import { createMaskedPacker, type MaskedPacker, type UpdateMasker } from './update-masker.ts';

/** Bytes of a share of the seed and one of the mask key, side by side. */
export const SHARES_BYTES: number = 2 * KEY_BYTES;

export interface SecaggSiteOptions {
  /**
   * What a coordinator proposes is for the caller to compare with the site's policy: cohort, thresholds, ring. So is it to
   * take part in a round once: a second object for the same round, with another cohort, would give the difference away.
   */
  readonly settings: SecaggSettings;
  /** This site's id. */
  readonly site: string;
  /** The keys that this site knows others by, and itself; never what a coordinator says in the round. */
  readonly roster: Roster;
  /** Signs with this site's Ed25519 key: returns 64 bytes. */
  readonly sign: (bytes: Uint8Array) => Uint8Array;
  /** With fewer in the sum, this site takes no part; from 3. @default 3 */
  readonly minCohort?: number;
  /** Fills arrays with uniform bytes, for stochastic rounding; tests may bring their own. @default `randomFillSync` */
  readonly random?: (bytes: Uint8Array) => void;
}

type Stage =
  | 'advertiseKeys'
  | 'shareKeys'
  | 'mask'
  | 'update'
  | 'signSurvivors'
  | 'unmask'
  | 'done'
  | 'aborted';

/** The shares that this site holds of another's secrets, or of its own. */
interface HeldShares {
  readonly seed: Uint8Array;
  readonly maskKey: Uint8Array;
}

/**
 * Its methods are called once each, in the order in which they stand here; of `beginMask` and `mask`, one. Each throws PrivacyError:
 * FED_PRIVACY_SECAGG_STAGE when it is called again or too early (nothing changes then), else the code of what is wrong
 * with what it was given, after which the site has no secrets any more and answers nothing.
 */
export class SecaggSite {
  readonly plan: SecaggPlan;
  readonly site: string;
  readonly #roster: Roster;
  readonly #sign: (bytes: Uint8Array) => Uint8Array;
  readonly #minCohort: number;
  readonly #random: RandomFill;
  readonly #channel: KeyPair = createKeyPair();
  readonly #mask: KeyPair = createKeyPair();
  readonly #seed: Uint8Array = randomFillSync(new Uint8Array(KEY_BYTES));
  /** For the envelopes that are to come, by the site that they are from. */
  readonly #received = new Map<string, EnvelopeKey>();
  readonly #held = new Map<string, HeldShares>();
  #stage: Stage = 'advertiseKeys';
  #packer: MaskedPacker | undefined;
  #cohort: Cohort | undefined;
  #sharers: readonly string[] = [];
  #survivors: readonly string[] = [];

  constructor(options: SecaggSiteOptions) {
    const { settings, site, roster, sign, minCohort = FEWEST_SITES, random = randomFillSync } = options;
    this.plan = planRound(settings);
    if (!Number.isInteger(minCohort) || minCohort < FEWEST_SITES)
      throw new PrivacyError(
        'FED_PRIVACY_PARAMETER',
        `minCohort is ${minCohort}: it must be an integer from ${FEWEST_SITES}`,
      );
    if (!this.plan.cohort.includes(site)) throw new RangeError(`this site, '${site}', is not in the cohort`);
    if (this.plan.cohort.length < minCohort)
      throw tooFew('in the cohort', this.plan.cohort.length, minCohort);
    this.site = site;
    this.#roster = roster;
    this.#sign = sign;
    this.#minCohort = minCohort;
    this.#random = random;
  }

  /** This site's keys of the round, signed. */
  advertiseKeys(): KeysMessage {
    return this.#step('advertiseKeys', 'shareKeys', () => {
      const message = {
        site: this.site,
        channelKey: this.#channel.publicKey,
        maskKey: this.#mask.publicKey,
        seedCommitment: seedCommitment(this.plan, this.site, this.#seed),
      };
      return { ...message, signature: this.#sign(keysStatement(this.plan, message)) };
    });
  }

  /**
   * Takes everybody's keys and returns this site's shares, sealed. Checks that each is signed with the key that this site
   * has pinned, for this run and round, that no key is there twice, that its own are there unchanged, and that there are
   * enough.
   */
  shareKeys(keys: readonly KeysMessage[]): SharesMessage {
    return this.#step('shareKeys', 'mask', () => {
      const { plan, site } = this;
      checkList(keys, plan.cohort.length, 'the list of keys');
      for (const message of keys) {
        checkKeysMessage(plan, message);
        // Its own are compared below.
        if (message.site !== site) checkKeysSignature(plan, this.#roster, message);
      }
      const cohort = agreeOnCohort(plan, this.#roster, keys);
      if (cohort.ids.length < this.#minCohort)
        throw tooFew('that have shown their keys', cohort.ids.length, this.#minCohort);
      this.#checkOwnKeys(cohort.keys.get(site));
      this.#cohort = cohort;
      const holders = cohort.holders(site);
      const seedShares = splitSecret(this.#seed, plan.shareThreshold, holders.length);
      const maskKeyShares = splitSecret(this.#mask.privateKey, plan.shareThreshold, holders.length);
      const envelopes: { to: string; sealed: Uint8Array }[] = [];
      holders.forEach((to, i) => {
        const shares = { seed: seedShares[i]!, maskKey: maskKeyShares[i]! };
        if (to === site) {
          this.#held.set(site, shares);
          return;
        }
        const keys = envelopeKeys(cohort, site, this.#channel, to);
        if (keys === undefined) throw uselessKey(to);
        // Kept from here on: to agree on it once more would take longer than all the rest of an envelope.
        this.#received.set(to, keys.received);
        const text = Buffer.concat([shares.seed, shares.maskKey]);
        envelopes.push({ to, sealed: seal(keys.sent.key, text, keys.sent.associated) });
        for (const secret of [text, keys.sent.key, shares.seed, shares.maskKey]) secret.fill(0);
      });
      return { site, envelopes };
    });
  }

  /**
   * Takes the others' envelopes, and returns what takes the update, piece by piece, and gives the masked update that is to
   * be sent. Whoever holds no update in memory reads it from a file, a megabyte at a time. The keys are erased: others hold
   * the shares of what is still needed of them.
   */
  beginMask(delivery: Delivery, numExamples: number): UpdateMasker {
    const packer = this.#step('mask', 'update', () => {
      const weight = weightOf(numExamples, this.plan.fixedPoint);
      this.#openEnvelopes(delivery);
      const masks = this.#masks();
      this.#packer = createMaskedPacker(this.plan, masks, weight, this.#random);
      for (const { key } of masks) key.fill(0);
      this.#eraseKeys();
      return this.#packer;
    });
    return {
      write: (values) => this.#step('update', 'update', () => packer.write(values)),
      finish: () =>
        this.#step('update', 'signSurvivors', () => {
          const last = packer.finish();
          packer.end();
          return last;
        }),
      abort: () => {
        if (this.#stage === 'update') this.abort();
      },
    };
  }

  /**
   * `beginMask` for an update that is in memory as a whole: returns the masked update, with the part of its values that was
   * clipped. `update` is read, not changed or kept: its arrays, one after the other, are the values.
   */
  mask(
    delivery: Delivery,
    update: readonly Float32Array[],
    numExamples: number,
  ): { readonly message: MaskedMessage; readonly clippedFraction: number } {
    const masker = this.beginMask(delivery, numExamples);
    const packed = new Uint8Array(this.plan.packedBytes);
    let end = 0;
    const append = (bytes: Uint8Array) => {
      packed.set(bytes, end);
      end += bytes.length;
    };
    for (const part of update)
      for (let start = 0; start < part.length; start += PIECE_WORDS)
        append(masker.write(part.subarray(start, start + PIECE_WORDS)));
    const { packed: last, clippedFraction } = masker.finish();
    append(last);
    return { message: { site: this.site, packed }, clippedFraction };
  }

  /**
   * Signs, once, that these are the sites in the sum. Checks that they are among those who shared, that this site is one of
   * them, and that they are enough.
   */
  signSurvivors(survivors: readonly string[]): SurvivorsMessage {
    return this.#step('signSurvivors', 'unmask', () => {
      const cohort = this.#agreed();
      checkIds(survivors, new Set(this.#sharers), 'the survivors');
      if (!survivors.includes(this.site))
        throw new PrivacyError(
          'FED_PRIVACY_SECAGG_SETS',
          'the coordinator says that this site dropped out, and it did not',
        );
      const fewest = Math.max(this.plan.threshold, this.#minCohort);
      if (survivors.length < fewest) throw tooFew('in the sum', survivors.length, fewest);
      const alive = new Set(survivors);
      const holders = cohort.holders(this.site).filter((id) => alive.has(id)).length;
      if (holders < this.plan.shareThreshold)
        throw tooFew('in the sum that hold shares of this site', holders, this.plan.shareThreshold);
      this.#survivors = [...survivors];
      const statement = survivorsStatement(this.plan, cohort, this.#sharers, survivors);
      return { site: this.site, signature: this.#sign(statement) };
    });
  }

  /**
   * Returns this site's shares: of the own masks of the survivors, and of the mask keys of those who shared and dropped
   * out; never both of one site, and never a second time. Checks that the survivors are those that it signed, and that at
   * least the threshold of them signed the same; more signatures than that are not looked at.
   */
  unmask(request: UnmaskRequest): UnmaskMessage {
    return this.#step('unmask', 'done', () => {
      const cohort = this.#agreed();
      const { survivors, signatures } = request;
      const alive = new Set(this.#survivors);
      checkIds(survivors, alive, 'the survivors to unmask');
      if (survivors.length !== alive.size)
        throw new PrivacyError(
          'FED_PRIVACY_SECAGG_SETS',
          'the survivors to unmask are not those that this site signed',
        );
      checkList(signatures, alive.size, 'the list of signatures');
      const statement = survivorsStatement(this.plan, cohort, this.#sharers, this.#survivors);
      const signers = new Set<string>();
      for (const { site, signature } of signatures) {
        if (!alive.has(site) || signers.has(site))
          throw faulty(site, 'its signature is there twice, or it is no survivor');
        checkBytes(signature, SIGNATURE_BYTES, 'its signature', site);
        // Enough is enough: more of them would make nothing safer. Its own it has made itself.
        const isDue = signers.size < this.plan.threshold && site !== this.site;
        if (isDue && !isSigned(this.#roster.get(site)!, statement, signature))
          throw new PrivacyError(
            'FED_PRIVACY_SECAGG_SIGNATURE',
            `site '${site}' has not signed the same survivors, sharers, keys and model as this site`,
            { site },
          );
        signers.add(site);
      }
      if (signers.size < this.plan.threshold)
        throw tooFew('that have signed the survivors', signers.size, this.plan.threshold);
      const seedShares = [];
      const maskKeyShares = [];
      for (const [of, shares] of this.#held)
        if (alive.has(of)) seedShares.push({ of, share: shares.seed.slice() });
        else maskKeyShares.push({ of, share: shares.maskKey.slice() });
      this.#erase();
      return { site: this.site, seedShares, maskKeyShares };
    });
  }

  /** Ends this site's part in the round and erases its secrets; it answers nothing any more. */
  abort(): void {
    this.#stage = this.#stage === 'done' ? 'done' : 'aborted';
    this.#erase();
  }

  #step<T>(stage: Stage, next: Stage, body: () => T): T {
    if (this.#stage !== stage)
      throw new PrivacyError(
        'FED_PRIVACY_SECAGG_STAGE',
        `${stage} was asked of site '${this.site}' at stage ${this.#stage}: each is answered once, in order`,
      );
    try {
      const result = body();
      this.#stage = next;
      return result;
    } catch (error) {
      this.abort();
      throw error;
    }
  }

  #agreed(): Cohort {
    if (this.#cohort === undefined) throw new TypeError('there is no cohort before the keys');
    return this.#cohort;
  }

  #checkOwnKeys(own: KeysMessage | undefined): void {
    const same =
      own !== undefined &&
      Buffer.compare(own.channelKey, this.#channel.publicKey) === 0 &&
      Buffer.compare(own.maskKey, this.#mask.publicKey) === 0 &&
      Buffer.compare(own.seedCommitment, seedCommitment(this.plan, this.site, this.#seed)) === 0;
    if (!same)
      throw new PrivacyError(
        'FED_PRIVACY_SECAGG_KEYS',
        "this site's own keys are missing from the list, or are others",
      );
  }

  #openEnvelopes(delivery: Delivery): void {
    const { plan, site } = this;
    const cohort = this.#agreed();
    const { sharers, envelopes } = delivery;
    checkIds(sharers, cohort.idSet, 'those who shared');
    const sharing = new Set(sharers);
    if (!sharing.has(site))
      throw new PrivacyError(
        'FED_PRIVACY_SECAGG_SETS',
        'the coordinator says that this site has not shared its keys',
      );
    const fewest = Math.max(plan.threshold, this.#minCohort);
    if (sharers.length < fewest) throw tooFew('that have shared their keys', sharers.length, fewest);
    // The graph is symmetric: who holds shares of mine gives me shares of its own.
    const expected = new Set(cohort.holders(site).filter((id) => id !== site && sharing.has(id)));
    checkList(envelopes, expected.size, 'the envelopes');
    for (const { from, sealed } of envelopes) {
      if (!expected.delete(from)) throw faulty(from, 'an envelope that is not due, or a second one');
      checkBytes(sealed, SHARES_BYTES + SEAL_BYTES, 'its envelope', from);
      const { key, associated } = this.#received.get(from)!;
      const text = open(key, sealed, associated);
      if (text === undefined)
        throw new PrivacyError(
          'FED_PRIVACY_SECAGG_ENVELOPE',
          `the envelope from site '${from}' does not open: it was changed, is of another round, or '${from}' was told of other keys or settings`,
          { site: from },
        );
      this.#held.set(from, { seed: text.slice(0, KEY_BYTES), maskKey: text.slice(KEY_BYTES) });
      text.fill(0);
    }
    const [missing] = expected;
    if (missing !== undefined) throw faulty(missing, 'it has shared its keys, and its envelope is missing');
    this.#sharers = [...sharers];
  }

  #masks(): Mask[] {
    const { plan, site } = this;
    const cohort = this.#agreed();
    const masks = [ownMask(plan, cohort, site, this.#seed)];
    const sharing = new Set(this.#sharers);
    for (const peer of cohort.neighbours(site)) {
      if (!sharing.has(peer)) continue;
      const mask = sharedMask(plan, cohort, site, peer, { site, maskKey: this.#mask });
      if (mask === undefined) {
        for (const { key } of masks) key.fill(0);
        throw uselessKey(peer);
      }
      masks.push(mask);
    }
    return masks;
  }

  #eraseKeys(): void {
    this.#channel.erase();
    this.#mask.erase();
    this.#seed.fill(0);
    for (const { key } of this.#received.values()) key.fill(0);
    this.#received.clear();
  }

  #erase(): void {
    this.#eraseKeys();
    this.#packer?.end();
    for (const { seed, maskKey } of this.#held.values()) {
      seed.fill(0);
      maskKey.fill(0);
    }
    this.#held.clear();
  }
}

function tooFew(which: string, are: number, needed: number): PrivacyError {
  return new PrivacyError('FED_PRIVACY_SECAGG_TOO_FEW', `${are} sites ${which}, where ${needed} are needed`);
}

function uselessKey(site: string): PrivacyError {
  return new PrivacyError('FED_PRIVACY_SECAGG_KEYS', `site '${site}' has a public key that hides nothing`, {
    site,
  });
}
