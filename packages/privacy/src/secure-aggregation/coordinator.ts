/**
 * The coordinator's part of a round of secure aggregation. It takes messages one by one, as they come, and closes each
 * stage when its caller has waited long enough: who has not answered then has dropped out. It folds each masked update
 * into one sum and forgets it. Of a site it learns nothing but that it was there.
 */
import { PrivacyError } from '../errors.ts';
import {
  agreeOnCohort,
  type Cohort,
  checkKeysMessage,
  checkKeysSignature,
  ownMask,
  type Roster,
  seedCommitment,
  sharedMask,
  survivorsStatement,
} from './cohort.ts';
import { isSigned, KEY_BYTES, keyPairOf, SEAL_BYTES, SIGNATURE_BYTES } from './keys.ts';
import { applyMasks, type Mask } from './masks.ts';
import {
  checkBytes,
  checkList,
  type Delivery,
  faulty,
  type KeysMessage,
  type MaskedMessage,
  type Share,
  type SharesMessage,
  type SurvivorsMessage,
  type UnmaskMessage,
  type UnmaskRequest,
} from './messages.ts';
import { checkPadding, createPackedSum, type PackedSum } from './packed-sum.ts';
import { planRound, type SecaggPlan, type SecaggSettings } from './plan.ts';
import { secretFromShares } from './shamir.ts';
import { SHARES_BYTES } from './site.ts';

export interface SecaggCoordinatorOptions {
  readonly settings: SecaggSettings;
  /** The keys that the sites are known by. */
  readonly roster: Roster;
}

export interface SecaggResult {
  /** Ids of those whose updates are in the sum, ascending. */
  readonly survivors: readonly string[];
  /** The sum of their weights. */
  readonly totalWeight: number;
  /** The sums of their weighted levels, one a parameter: `decodeMean` makes the mean update of them. */
  readonly sums: Uint32Array;
  /** The mean, over the survivors, of the part of the values that was clipped; each rounded up to a step. */
  readonly clippedFraction: number;
}

/** Takes a masked update in pieces of any length, none of which is kept. */
export interface MaskedReceiver {
  /**
   * Adds the next bytes to the sum. Throws PrivacyError FED_PRIVACY_SECAGG_MESSAGE for more than were said, and for bits at
   * the end that belong to no value and are not zero.
   */
  write(bytes: Uint8Array): void;
  /** The update counts now. Throws PrivacyError FED_PRIVACY_SECAGG_MESSAGE when bytes are missing. */
  finish(): void;
}

type Stage = 'keys' | 'shares' | 'masked' | 'signatures' | 'unmask' | 'done' | 'aborted';

/**
 * `receive…` takes one site's message of the stage, and throws PrivacyError, with `site`, for one that is not as it must
 * be: nothing of it is kept then, and the round can go on without that site. `close…` ends the stage and returns what to
 * send; it throws FED_PRIVACY_SECAGG_TOO_FEW, and the round is over, when too few have answered.
 */
export class SecaggCoordinator {
  readonly plan: SecaggPlan;
  readonly #roster: Roster;
  readonly #keys = new Map<string, KeysMessage>();
  readonly #shares = new Map<string, ReadonlyMap<string, Uint8Array>>();
  readonly #masked = new Set<string>();
  /** Whose masked update is a part in the sum. */
  readonly #begun = new Set<string>();
  readonly #signatures = new Map<string, SurvivorsMessage>();
  readonly #unmasked = new Map<string, UnmaskMessage>();
  #sum: PackedSum | undefined;
  #stage: Stage = 'keys';
  #cohort: Cohort | undefined;
  #sharers: ReadonlySet<string> = new Set();
  #survivors: readonly string[] = [];
  /** What each of them has to sign. */
  #statement: Uint8Array = new Uint8Array(0);

  constructor(options: SecaggCoordinatorOptions) {
    this.plan = planRound(options.settings);
    this.#roster = options.roster;
  }

  receiveKeys(message: KeysMessage): void {
    this.#expect('keys');
    checkKeysMessage(this.plan, message);
    checkKeysSignature(this.plan, this.#roster, message);
    refuseSecond(this.#keys.has(message.site), message.site);
    this.#keys.set(message.site, message);
  }

  /** Everybody's keys: for each of those who have sent theirs. */
  closeKeys(): readonly KeysMessage[] {
    return this.#close('keys', 'shares', () => {
      this.#cohort = agreeOnCohort(this.plan, this.#roster, [...this.#keys.values()]);
      return this.#cohort.ids.map((id) => this.#keys.get(id)!);
    });
  }

  receiveShares(message: SharesMessage): void {
    this.#expect('shares');
    const { site, envelopes } = message;
    const cohort = this.#agreed();
    this.#checkMember(site, cohort.idSet, this.#shares.has(site));
    const due = new Set(cohort.holders(site).filter((id) => id !== site));
    checkList(envelopes, due.size, 'its envelopes', site);
    const sealed = new Map<string, Uint8Array>();
    for (const envelope of envelopes) {
      if (!due.delete(envelope.to))
        throw faulty(site, `an envelope for '${envelope.to}' is not due, or is the second`);
      sealed.set(envelope.to, checkBytes(envelope.sealed, SHARES_BYTES + SEAL_BYTES, 'an envelope', site));
    }
    if (due.size > 0) throw faulty(site, `there is no envelope for '${[...due].join("', '")}'`);
    this.#shares.set(site, sealed);
  }

  /** For each of those who have shared, its envelopes. */
  closeShares(): ReadonlyMap<string, Delivery> {
    return this.#close('shares', 'masked', () => {
      const sharers = this.#enough([...this.#shares.keys()], 'shared their keys');
      this.#sharers = new Set(sharers);
      const deliveries = new Map<string, Delivery>();
      for (const to of sharers) {
        const envelopes: { from: string; sealed: Uint8Array }[] = [];
        for (const from of sharers) {
          const sealed = this.#shares.get(from)!.get(to);
          if (sealed !== undefined) envelopes.push({ from, sealed });
        }
        deliveries.set(to, { sharers, envelopes });
      }
      this.#shares.clear();
      return deliveries;
    });
  }

  /**
   * Returns what adds a masked update of `bytes` bytes to the sum, piece by piece; it counts once it is finished. Throws for
   * a wrong number of bytes, or a second update of one site: the sum is unharmed then. From here on it is not: an update
   * that is begun and not finished, for whatever reason, spoils the sum, and `closeMasked` ends the round. So what is
   * written should be whole and checked on a disk before.
   */
  beginMasked(site: string, bytes: number): MaskedReceiver {
    this.#expect('masked');
    const { words, fixedPoint, packedBytes } = this.plan;
    this.#checkMember(site, this.#sharers, this.#masked.has(site) || this.#begun.has(site));
    if (bytes !== packedBytes) throw faulty(site, `its masked update is not ${packedBytes} bytes`);
    this.#sum ??= createPackedSum(words, fixedPoint.bits);
    const addend = this.#sum.add(site);
    this.#begun.add(site);
    const step = (body: () => void): void => {
      this.#expect('masked');
      if (!this.#begun.has(site)) throw faulty(site, 'its masked update is finished');
      body();
    };
    return {
      write: (bytes) => step(() => addend.write(bytes)),
      finish: () =>
        step(() => {
          addend.finish();
          this.#begun.delete(site);
          this.#masked.add(site);
        }),
    };
  }

  /** `beginMasked` for an update that is in memory as a whole, all of which is checked before anything is added. */
  receiveMasked(message: MaskedMessage): void {
    this.#expect('masked');
    const { site, packed } = message;
    const { words, fixedPoint, packedBytes } = this.plan;
    this.#checkMember(site, this.#sharers, this.#masked.has(site));
    checkBytes(packed, packedBytes, 'its masked update', site);
    checkPadding(packed, words, fixedPoint.bits, site);
    const receiver = this.beginMasked(site, packed.length);
    receiver.write(packed);
    receiver.finish();
  }

  /** Ids of those whose masked updates are in the sum: for each of them to sign. */
  closeMasked(): readonly string[] {
    return this.#close('masked', 'signatures', () => {
      for (const site of this.#begun)
        throw faulty(site, 'its masked update was begun and not finished: the sum is spoilt, the round over');
      this.#survivors = this.#enough([...this.#masked], 'sent a masked update');
      this.#checkHolders(this.#masked);
      const sharers = [...this.#sharers];
      this.#statement = survivorsStatement(this.plan, this.#agreed(), sharers, this.#survivors);
      return this.#survivors;
    });
  }

  receiveSignature(message: SurvivorsMessage): void {
    this.#expect('signatures');
    const { site, signature } = message;
    this.#checkMember(site, this.#masked, this.#signatures.has(site));
    checkBytes(signature, SIGNATURE_BYTES, 'its signature', site);
    if (!isSigned(this.#roster.get(site)!, this.#statement, signature))
      throw new PrivacyError(
        'FED_PRIVACY_SECAGG_SIGNATURE',
        `site '${site}' has not signed these survivors, sharers, keys and model`,
        { site },
      );
    this.#signatures.set(site, message);
  }

  /** For each of those who have signed. */
  closeSignatures(): UnmaskRequest {
    return this.#close('signatures', 'unmask', () => {
      const signers = this.#enough([...this.#signatures.keys()], 'signed who is in the sum');
      this.#checkHolders(this.#signatures);
      return { survivors: this.#survivors, signatures: signers.map((id) => this.#signatures.get(id)!) };
    });
  }

  receiveUnmask(message: UnmaskMessage): void {
    this.#expect('unmask');
    const { site, seedShares, maskKeyShares } = message;
    const cohort = this.#agreed();
    this.#checkMember(site, this.#signatures, this.#unmasked.has(site));
    // Who holds shares of a site is held by it: the graph is symmetric.
    const held = cohort.holders(site).filter((id) => this.#sharers.has(id));
    const of = (isSurvivor: boolean) => new Set(held.filter((id) => this.#masked.has(id) === isSurvivor));
    checkShares(seedShares, of(true), site);
    checkShares(maskKeyShares, of(false), site);
    this.#unmasked.set(site, message);
  }

  /**
   * The sum without its masks. Throws PrivacyError FED_PRIVACY_SECAGG_SHARES when shares do not give back what was
   * committed to, whichever of them are taken, and FED_PRIVACY_SECAGG_NOISE when what is left can't be a sum of updates.
   */
  finish(): SecaggResult {
    return this.#close('unmask', 'done', () => {
      this.#enough([...this.#unmasked.keys()], 'given their shares');
      this.#checkHolders(this.#unmasked);
      const masks = this.#masksInTheSum();
      const sum = this.#sum!.words;
      applyMasks(
        sum,
        masks.map(({ key, sign }) => ({ key, sign: sign === 1 ? -1 : 1 })),
      );
      for (const { key } of masks) key.fill(0);
      this.#sum = undefined;
      return this.#read(sum);
    });
  }

  #masksInTheSum(): Mask[] {
    const { plan } = this;
    const cohort = this.#agreed();
    const recover = recovery(cohort, plan.shareThreshold);
    const masks: Mask[] = [];
    const shares = { seed: this.#sharesOf('seedShares'), maskKey: this.#sharesOf('maskKeyShares') };
    for (const id of this.#sharers) {
      const keys = cohort.keys.get(id)!;
      if (this.#masked.has(id)) {
        const seed = recover(id, shares.seed.get(id) ?? [], (secret) =>
          equal(seedCommitment(plan, id, secret), keys.seedCommitment),
        );
        masks.push(ownMask(plan, cohort, id, seed));
        seed.fill(0);
        continue;
      }
      const survivors = cohort.neighbours(id).filter((peer) => this.#masked.has(peer));
      if (survivors.length === 0) continue;
      const maskKey = keyPairOf(
        recover(id, shares.maskKey.get(id) ?? [], (secret) =>
          equal(keyPairOf(secret).publicKey, keys.maskKey),
        ),
      );
      for (const site of survivors) {
        const mask = sharedMask(plan, cohort, site, id, { site: id, maskKey });
        if (mask !== undefined) masks.push(mask);
      }
      maskKey.erase();
    }
    return masks;
  }

  #sharesOf(kind: 'seedShares' | 'maskKeyShares'): Map<string, HeldShare[]> {
    const shares = new Map<string, HeldShare[]>();
    for (const message of this.#unmasked.values())
      for (const { of, share } of message[kind]) {
        const list = shares.get(of);
        if (list === undefined) shares.set(of, [{ holder: message.site, share }]);
        else list.push({ holder: message.site, share });
      }
    return shares;
  }

  #read(words: Uint32Array): SecaggResult {
    const { fixedPoint, parameters } = this.plan;
    const { bits, steps, maxWeight } = fixedPoint;
    keepLowest(words, bits);
    const sites = this.#survivors.length;
    const totalWeight = words[parameters]!;
    const clipped = words[parameters + 1]!;
    const sums = words.subarray(0, parameters);
    const isSum =
      totalWeight >= sites &&
      totalWeight <= sites * maxWeight &&
      clipped <= sites * steps &&
      areAtMost(sums, totalWeight * steps);
    if (!isSum)
      throw new PrivacyError(
        'FED_PRIVACY_SECAGG_NOISE',
        'masks are left in the sum: a site has masked for another model, or sent what is no masked update',
      );
    return { survivors: this.#survivors, totalWeight, sums, clippedFraction: clipped / steps / sites };
  }

  #expect(stage: Stage): void {
    if (this.#stage !== stage)
      throw new PrivacyError(
        'FED_PRIVACY_SECAGG_STAGE',
        `stage ${stage} is not open: the round is at stage ${this.#stage}`,
      );
  }

  #close<T>(stage: Stage, next: Stage, body: () => T): T {
    this.#expect(stage);
    try {
      const result = body();
      this.#stage = next;
      return result;
    } catch (error) {
      this.#stage = 'aborted';
      this.#unmasked.clear();
      this.#sum = undefined;
      throw error;
    }
  }

  #agreed(): Cohort {
    if (this.#cohort === undefined) throw new TypeError('there is no cohort before the keys');
    return this.#cohort;
  }

  #checkMember(site: string, members: { has(id: string): boolean }, isSecond: boolean): void {
    if (typeof site !== 'string' || !members.has(site))
      throw faulty(String(site), 'it has not answered at the stage before, and is out of the round');
    refuseSecond(isSecond, site);
  }

  #enough(ids: string[], done: string): readonly string[] {
    if (ids.length < this.plan.threshold)
      throw new PrivacyError(
        'FED_PRIVACY_SECAGG_TOO_FEW',
        `${ids.length} sites have ${done}, where ${this.plan.threshold} are needed; nobody's update was told`,
      );
    return ids.sort();
  }

  /** Whether the secrets of everybody who shared can still be given back: before anybody is asked for a share. */
  #checkHolders(present: { has(id: string): boolean }): void {
    const cohort = this.#agreed();
    for (const id of this.#sharers) {
      const holders = cohort.holders(id).filter((holder) => present.has(holder)).length;
      if (holders < this.plan.shareThreshold)
        throw new PrivacyError(
          'FED_PRIVACY_SECAGG_TOO_FEW',
          `${holders} sites are left that hold shares of site '${id}', where ${this.plan.shareThreshold} are needed`,
        );
    }
  }
}

interface HeldShare {
  readonly holder: string;
  readonly share: Uint8Array;
}

/**
 * Returns a function that gives back a site's secret. Should the first shares be wrong, others are taken: all runs of
 * `threshold` shares in the order of their holders, so that any one liar is left out by some, if there are more shares.
 */
function recovery(cohort: Cohort, threshold: number) {
  const byHolders = new Map<string, ReturnType<typeof secretFromShares>>();
  return (of: string, shares: readonly HeldShare[], isRight: (secret: Uint8Array) => boolean): Uint8Array => {
    const places = new Map(cohort.holders(of).map((holder, i) => [holder, i + 1]));
    const runs = shares.length > threshold ? shares.length : 1;
    for (let first = 0; first < runs && shares.length >= threshold; first++) {
      const chosen = Array.from({ length: threshold }, (_, i) => shares[(first + i) % shares.length]!);
      const xs = chosen.map(({ holder }) => places.get(holder)!);
      const name = xs.join(',');
      let combine = byHolders.get(name);
      if (combine === undefined) {
        combine = secretFromShares(xs);
        byHolders.set(name, combine);
      }
      const secret = combine(chosen.map(({ share }) => share));
      if (isRight(secret)) return secret;
    }
    throw new PrivacyError(
      'FED_PRIVACY_SECAGG_SHARES',
      `the shares of site '${of}' do not give back its secret: it has dealt wrong ones, or their holders give wrong ones`,
      { site: of },
    );
  };
}

function checkShares(shares: readonly Share[], due: Set<string>, site: string): void {
  checkList(shares, due.size, 'its shares', site);
  for (const { of, share } of shares) {
    if (!due.delete(of)) throw faulty(site, `its share of '${of}' is not due, or is the second`);
    checkBytes(share, KEY_BYTES, `its share of '${of}'`, site);
  }
  if (due.size > 0) throw faulty(site, `there is no share of '${[...due].join("', '")}'`);
}

function keepLowest(words: Uint32Array, bits: number): void {
  const keep = bits === 32 ? -1 : (1 << bits) - 1;
  for (let i = 0; i < words.length; i++) words[i] = words[i]! & keep;
}

function areAtMost(words: Uint32Array, largest: number): boolean {
  for (let i = 0; i < words.length; i++) if (words[i]! > largest) return false;
  return true;
}

function refuseSecond(isSecond: boolean, site: string): void {
  if (isSecond) throw faulty(site, 'a second message at the same stage');
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
