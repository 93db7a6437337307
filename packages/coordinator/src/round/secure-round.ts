/**
 * One round of training in which the coordinator learns the sum of the updates and no single one (ADR 0009). Sites train
 * and keep what they have; once enough have, those that are here mask it together, in one attempt of a few quick stages.
 * An attempt that fails, at whichever stage, is followed by another one with new keys: nothing is trained again.
 */
import { rmSync } from 'node:fs';
import { mkdir, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import {
  type Delivery,
  decodeMean,
  type KeysMessage,
  PrivacyError,
  SecaggCoordinator,
  type SecaggResult,
  settingsOfRound,
} from '@tributary/privacy';
import {
  type BlobRef,
  bytesToText,
  type Channel,
  crashPoint,
  errorCode,
  fetchBlob,
  keysToBytes,
  keysToText,
  type MessageOf,
  type MessageType,
  newNonce,
  type Outgoing,
  openFileSink,
  ProtocolError,
  RemoteError,
  type SecureAggregationPlan,
  sharedNoiseOf,
  textToBytes,
} from '@tributary/shared-protocol';
import { CoordinatorError } from '../errors.ts';
import { isStorageError, storageError } from '../run/atomic-file.ts';
import type { AcceptedUpdate } from '../run/records.ts';
import type { MeanUpdate } from '../strategy.ts';
import type { RunContext } from './context.ts';
import { createGathering, isTransient, RoundFailed, type TrainRoundPlan, text } from './gathering.ts';
import { checkRound } from './offer-checks.ts';
import { createTurns, pullWindow } from './pull.ts';
import type { TrainRound } from './train-round.ts';

/** `failed`: it has given up, and may be asked once more; `faulty`: what it sent is wrong, and the round goes on without. */
type SiteState = 'pending' | 'trained' | 'failed' | 'faulty';

interface MaskedOffer {
  readonly offer: MessageOf<'offer'>;
  readonly session: string;
}

/** A site has said that it can't mask its update, and why. */
class GaveUp extends Error {
  override readonly name = 'GaveUp' as const;
}

/** Someone waits for a site's masked update. */
interface Expected {
  take(offer: MaskedOffer): void;
  fail(error: unknown): void;
}

/** What an attempt has come to. */
interface Attempt {
  readonly id: string;
  /** Of those whose masked update is due. */
  readonly expected: Map<string, Expected>;
  readonly abort: AbortController;
  /** By site: those who say that what it sent them is useless. */
  readonly accusers: Map<string, Set<string>>;
  /** Bytes of a masked update. */
  packedBytes: number;
  /** Sites that may be missing at the end. */
  spare: number;
}

/** A stage waits so long for the answer of a site, and for one that has lost its link. Masking may take longer. */
const STAGE_MS = 60_000;
const MASKING_MS = 600_000;
const READ_BYTES = 1024 * 1024;

export function createSecureRound(
  context: RunContext,
  secure: SecureAggregationPlan,
  plan: TrainRoundPlan,
): TrainRound {
  const { roster, now, state, federation, manifest } = context;
  const { round, cohort, model } = plan;
  const parameters = manifest.reduce((n, t) => n + t.shape.reduce((a, b) => a * b, 1), 0);
  const sites = new Map<string, SiteState>(cohort.map((name) => [name, 'pending']));
  const accepted = new Map<string, AcceptedUpdate>();
  const turn = createTurns();
  let attempt: Attempt | undefined;
  let result: SecaggResult | undefined;
  let mean: MeanUpdate | undefined;

  const isHere = (name: string) => sites.get(name) === 'trained' && roster.members.get(name)?.ready === true;
  const gathering = createGathering(context, plan, {
    count: () => candidates().length,
    standing(name) {
      const site = sites.get(name);
      if (state.open?.survivors?.includes(name) === false) return 'done';
      if (site === 'trained') return isHere(name) ? 'done' : 'busy';
      return site === 'pending' ? 'pending' : 'done';
    },
    movedAt: () => undefined,
    reopen(name) {
      const site = sites.get(name);
      // Without one of those who were asked to unmask there is no sum at all.
      if (site === 'failed' || (site === 'faulty' && state.open?.survivors?.includes(name)))
        sites.set(name, 'pending');
    },
    onMember: () => undefined,
  });

  /** Those with whom an attempt may begin. Once a set of sites was asked to unmask, it is all of that set or nobody. */
  function candidates(): string[] {
    const asked = state.open?.survivors;
    if (asked === undefined) return cohort.filter(isHere);
    return asked.every(isHere) ? [...asked] : [];
  }

  async function play(names: readonly string[], current: Attempt): Promise<SecaggResult> {
    const { id, abort } = current;
    const { signal } = abort;
    const keys = new Map(names.map((name) => [name, state.members.get(name)?.key ?? '']));
    const secagg = new SecaggCoordinator({
      settings: settingsOfRound(
        {
          ...secure,
          weighting: federation.strategy.weighting,
          shares: sharedNoiseOf(federation.privacy),
        },
        {
          run: state.runId,
          round,
          attempt: id,
          cohort: names,
          parameters,
          modelDigest: model.digest,
          configurationDigest: federation.digest,
        },
      ),
      roster: keys,
    });
    current.packedBytes = secagg.plan.packedBytes;
    current.spare = names.length - secagg.plan.threshold;
    const named = names.map((name) => {
      const { keyChanges = [] } = state.members.get(name) ?? {};
      const changes = keyChanges.length > 0 ? { changes: [...keyChanges] } : {};
      return { name, publicKey: keys.get(name)!, ...changes };
    });

    const advertise = { type: 'advertise', attempt: id, round, base: model.digest, cohort: named } as const;
    await stage(names, signal, async (site) => {
      const { type: _, ...answer } = await ask(site, signal, advertise, 'advertised');
      secagg.receiveKeys({ site, ...keysToBytes(answer) });
    });
    const shown = secagg.closeKeys();
    crashPoint('coordinator:secagg-keys');

    const share = { type: 'share', attempt: id, keys: shown.map(keysMessage) } as const;
    await stage(
      shown.map(({ site }) => site),
      signal,
      async (site) => {
        const { envelopes } = await ask(site, signal, share, 'shared');
        secagg.receiveShares({
          site,
          envelopes: envelopes.map(({ to, sealed }) => ({ to, sealed: textToBytes(sealed) })),
        });
      },
    );
    const deliveries = secagg.closeShares();
    crashPoint('coordinator:secagg-shares');

    await stage([...deliveries.keys()], signal, async (site) => {
      const masked = await fetchMasked(site, current, maskMessage(id, deliveries.get(site)!));
      try {
        await addMasked(secagg, site, masked);
      } finally {
        rmSync(masked.path, { force: true });
      }
      accept(site, current, masked);
    });
    const survivors = secagg.closeMasked();
    crashPoint('coordinator:secagg-masked');
    if (survivors.length < gathering.minUpdates)
      throw new PrivacyError(
        'FED_PRIVACY_SECAGG_TOO_FEW',
        `${survivors.length} masked updates came, where ${gathering.minUpdates} are needed`,
      );
    const asked = state.open?.survivors;
    if (asked !== undefined && asked.length !== survivors.length)
      throw new PrivacyError(
        'FED_PRIVACY_SECAGG_TOO_FEW',
        `the sum of ${asked.join(', ')} was asked for before, the masked updates of ${survivors.join(', ')} came, and no other sum of the same updates is unmasked`,
      );
    // Before any site signs: from then on they sign no other set.
    context.record({ type: 'survivors', round, attempt: id, names: survivors }, { durable: true });
    crashPoint('coordinator:secagg-survivors');

    await stage(survivors, signal, async (site) => {
      const agree: Outgoing = { type: 'agree', attempt: id, survivors: [...survivors] };
      const { signature } = await ask(site, signal, agree, 'agreed');
      secagg.receiveSignature({ site, signature: textToBytes(signature) });
    });
    const request = secagg.closeSignatures();
    crashPoint('coordinator:secagg-signed');

    const signatures = request.signatures.map(({ site, signature }) => ({
      site,
      signature: bytesToText(signature),
    }));
    const unmask: Outgoing = { type: 'unmask', attempt: id, survivors: [...request.survivors], signatures };
    await stage(
      signatures.map(({ site }) => site),
      signal,
      async (site) => {
        const { seedShares, maskKeyShares } = await ask(site, signal, unmask, 'unmasked');
        const shares = (list: typeof seedShares) =>
          list.map(({ of, share: held }) => ({ of, share: textToBytes(held) }));
        secagg.receiveUnmask({ site, seedShares: shares(seedShares), maskKeyShares: shares(maskKeyShares) });
      },
    );
    crashPoint('coordinator:secagg-unmasked');
    const sum = secagg.finish();
    mean = meanOf(sum, secagg.plan.fixedPoint);
    return sum;
  }

  /** One stage: whoever fails in it is out of the attempt, and the others go on. */
  async function stage(
    names: readonly string[],
    signal: AbortSignal,
    work: (name: string) => Promise<void>,
  ): Promise<void> {
    await Promise.all(
      names.map(async (name) => {
        try {
          await work(name);
        } catch (error) {
          if (isStorageError(error)) throw storageError(context.directory.paths.spool, error);
          if (!signal.aborted) dropOut(name, error);
        }
      }),
    );
    signal.throwIfAborted();
  }

  /** A site that is gone may take part in the next attempt; one that refuses, or sends what is wrong, in none. */
  function dropOut(name: string, error: unknown): void {
    if (error instanceof GaveUp) return;
    const code = errorCode(error) ?? 'FED_INTERNAL';
    const reason = text(error);
    const mayReturn =
      code.startsWith('FED_TRANSPORT_') ||
      code === 'FED_WORKER_ATTEMPT' ||
      (error instanceof RemoteError && error.retryable);
    if (mayReturn) {
      // It has lost what it had, or will say once more that it has it.
      if (code === 'FED_WORKER_ATTEMPT') sites.set(name, 'pending');
      context.emit({
        type: 'warning',
        message: `${name} dropped out of the secure sum of round ${round}: ${reason}`,
      });
      return;
    }
    const gaveUp = error instanceof RemoteError || code === 'FED_UPDATE_LATE' || code === 'FED_INTERNAL';
    sites.set(name, gaveUp ? 'failed' : 'faulty');
    context.record({ type: 'client-failed', round, name, task: 'train', code, reason });
    context.emit({ type: 'client-failed', round, name, code, reason });
  }

  /** What a site has offered is no masked update: nothing else is waited for from it. */
  function refuse(name: string, error: CoordinatorError): never {
    const expected = attempt?.expected.get(name);
    if (expected) expected.fail(error);
    else if (sites.get(name) === 'pending') {
      dropOut(name, error);
      setImmediate(() => gathering.review());
    }
    throw error;
  }

  /** Asks a site, on its next link again when the present one is lost: it answers a stage once, and the same again. */
  async function ask<T extends MessageType>(
    name: string,
    signal: AbortSignal,
    message: Outgoing,
    expect: T,
  ): Promise<MessageOf<T>> {
    const until = now() + STAGE_MS;
    for (;;) {
      const channel = await linkOf(name, signal, until);
      try {
        return await channel.call(message, expect, { signal, timeoutMs: STAGE_MS });
      } catch (error) {
        signal.throwIfAborted();
        if (errorCode(error) !== 'FED_TRANSPORT_CLOSED') throw error;
        await channel.closed;
      }
    }
  }

  /** The link of a site that is ready, or the one with which it comes back in time. */
  function linkOf(name: string, signal: AbortSignal, until: number): Promise<Channel> {
    const here = () => {
      const member = roster.members.get(name);
      return member?.ready ? member.channel : undefined;
    };
    const channel = here();
    if (channel) return Promise.resolve(channel);
    return new Promise((resolve, reject) => {
      const gone = () =>
        end(() => reject(new ProtocolError('FED_TRANSPORT_CLOSED', `"${name}" has lost its link`)));
      const patience = Math.min(federation.deadlines.rejoinSeconds * 1000, until - now());
      const timer = setTimeout(gone, Math.max(1, patience));
      const onAbort = () => end(() => reject(signal.reason));
      const forget = roster.onChange((member) => {
        const next = member.name === name ? here() : undefined;
        if (next) end(() => resolve(next));
      });
      const end = (then: () => void) => {
        clearTimeout(timer);
        forget();
        signal.removeEventListener('abort', onAbort);
        then();
      };
      signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /** Resolves when a site's whole masked update lies in the spool, over as many links as that takes. */
  async function fetchMasked(name: string, current: Attempt, message: Outgoing) {
    const { signal } = current.abort;
    const until = now() + MASKING_MS;
    for (;;) {
      const channel = await linkOf(name, signal, until);
      try {
        const offered = expectOffer(name, current, channel, until);
        offered.catch(() => undefined);
        await channel.call(message, 'ok', { signal, timeoutMs: STAGE_MS });
        const { offer, session } = await offered;
        const path = spoolPath(name, offer.update);
        await mkdir(dirname(path), { recursive: true });
        await turn(async () => {
          const sink = await openFileSink(path, offer.update);
          await fetchBlob(channel, offer.update, sink, {
            signal,
            window: pullWindow(cohort.length),
            onProgress() {
              crashPoint('coordinator:secagg-chunk');
              const member = roster.members.get(name);
              if (member) member.lastSeenAt = now();
            },
          });
        });
        return { offer, session, path };
      } catch (error) {
        signal.throwIfAborted();
        if (!isTransient(error, signal) || errorCode(error) === undefined || now() >= until) throw error;
        // The site is there but its update does not come: on a new link it is asked again, what has arrived is kept.
        await channel.close(`the masked update of round ${round} stopped coming: ${text(error)}`);
      } finally {
        current.expected.delete(name);
      }
    }
  }

  function expectOffer(
    name: string,
    current: Attempt,
    channel: Channel,
    until: number,
  ): Promise<MaskedOffer> {
    return new Promise((resolve, reject) => {
      const late = new CoordinatorError(
        'FED_UPDATE_LATE',
        `no masked update came within ${MASKING_MS / 1000} s`,
      );
      const timer = setTimeout(() => reject(late), Math.max(1, until - now()));
      const { signal } = current.abort;
      const onAbort = () => {
        end();
        reject(signal.reason);
      };
      const end = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      void channel.closed.then((why) => {
        end();
        reject(new ProtocolError('FED_TRANSPORT_CLOSED', why));
      });
      current.expected.set(name, {
        take(offer) {
          end();
          resolve(offer);
        },
        fail(error) {
          end();
          reject(error);
        },
      });
    });
  }

  function spoolPath(name: string, { digest }: BlobRef): string {
    const folder = context.directory.paths.roundSpool(round);
    return join(folder, `${state.members.get(name)?.clientId}-${digest.slice(0, 16)}.masked`);
  }

  function accept(name: string, { id }: Attempt, { offer, session }: MaskedOffer): void {
    const { digest, bytes, chunkBytes } = offer.update;
    const entry: AcceptedUpdate = {
      type: 'update-accepted',
      round,
      name,
      digest,
      bytes,
      metrics: {},
      attempt: id,
      offer: { ...offer.signed, session, base: offer.base, chunkBytes },
    };
    context.record(entry);
    accepted.set(name, entry);
    context.emit({ type: 'update-accepted', round, name, bytes, metrics: {} });
  }

  /** Ends the round for good where a set of sites was asked to unmask, and can't come together any more. */
  function refuseIfStuck(): void {
    const gone = state.open?.survivors?.filter((name) => !cohort.includes(name)) ?? [];
    if (gone.length === 0) return;
    throw new RoundFailed(
      `the sum of round ${round} was to be unmasked with ${gone.join(', ')}, who is out of the run now; sites unmask no other sum of the same updates, as the difference would be one site's. Start a new run from the last checkpoint`,
    );
  }

  return {
    plan,
    get accepted() {
      const survivors = new Set(result?.survivors);
      return new Map([...accepted].filter(([name]) => survivors.has(name)));
    },
    sum() {
      if (!mean || !result) throw new TypeError('there is no sum yet');
      const numExamples = federation.strategy.weighting === 'examples' ? mean.totalWeight : undefined;
      return { mean, numExamples, clippedFraction: result.clippedFraction };
    },
    trained(member, message) {
      checkRound(message, member.name, { round, cohort, base: model.digest }, round);
      const { name } = member;
      const { release } = message;
      const noted = release && state.released.get(name)?.has(`${round} ${release.update}`);
      if (sites.get(name) !== 'trained' && !noted)
        context.record({ type: 'trained', round, name, ...(release === undefined ? {} : { release }) });
      if (sites.get(name) !== 'faulty') sites.set(name, 'trained');
      setImmediate(() => gathering.review());
      return { type: 'receipt', decision: 'send' };
    },
    offer(member, offer) {
      checkRound(offer, member.name, { round, cohort, base: model.digest }, round);
      const { attempt: id, update, numExamples, metrics } = offer;
      if (id === undefined)
        refuse(
          member.name,
          new CoordinatorError(
            'FED_UPDATE_UNMASKED',
            'the update is not masked, and this federation sums masked ones only',
          ),
        );
      const expected = id === attempt?.id ? attempt.expected.get(member.name) : undefined;
      if (!attempt || !expected)
        throw new CoordinatorError('FED_UPDATE_LATE', 'that attempt of the secure sum is over');
      if (
        update.bytes !== attempt.packedBytes ||
        numExamples !== undefined ||
        Object.keys(metrics).length > 0
      )
        refuse(
          member.name,
          new CoordinatorError(
            'FED_UPDATE_SIZE',
            `a masked update is ${attempt.packedBytes} bytes and nothing beside; ${update.bytes} were declared`,
          ),
        );
      // The receipt goes out first: the site serves chunks only once it has it.
      const taken = { offer, session: member.session };
      setImmediate(() => expected.take(taken));
      return { type: 'receipt', decision: 'send' };
    },
    failed({ name }, { code, reason, accused }) {
      if (attempt && accused !== undefined) {
        const accusers = attempt.accusers.get(accused) ?? new Set();
        attempt.accusers.set(accused, accusers.add(name));
      }
      attempt?.expected.get(name)?.fail(new GaveUp(`${code}: ${reason}`));
      if (!sites.has(name) || sites.get(name) === 'faulty' || accepted.has(name)) return;
      sites.set(name, 'failed');
      gathering.review();
      context.emit({ type: 'client-failed', round, name, code, reason });
    },
    expel(name) {
      gathering.expel(name);
      if (gathering.expelled) attempt?.abort.abort(gathering.expelled);
    },
    // Masked updates are worth nothing after a restart: the secrets of their attempt are gone, and sites still have theirs.
    restore: () => Promise.resolve(),
    async run() {
      const onStop = () => attempt?.abort.abort(context.signal.reason);
      context.signal.addEventListener('abort', onStop, { once: true });
      try {
        for (;;) {
          refuseIfStuck();
          await gathering.wait();
          accepted.clear();
          attempt = {
            id: newNonce(),
            expected: new Map(),
            abort: new AbortController(),
            accusers: new Map(),
            packedBytes: 0,
            spare: 0,
          };
          try {
            result = await play(candidates(), attempt);
            break;
          } catch (error) {
            if (gathering.expelled) throw gathering.expelled;
            context.signal.throwIfAborted();
            if (!(error instanceof PrivacyError)) throw error;
            for (const name of blamed(error, attempt)) if (sites.has(name)) sites.set(name, 'faulty');
            // Each of them is noise to us, with its mask or without.
            const whose =
              error.code === 'FED_PRIVACY_SECAGG_NOISE'
                ? '; nobody can tell which, and no other sum of these updates is unmasked. If it stays so, start a new run from the last checkpoint'
                : '';
            gathering.extend(`they could not be summed: ${error.message}${whose}`);
          } finally {
            // Also where one site's storage error has ended it: nothing waits for the others any more.
            attempt.abort.abort(new Error('the attempt is over'));
            attempt = undefined;
          }
        }
      } finally {
        context.signal.removeEventListener('abort', onStop);
      }
      if (gathering.expelled) throw gathering.expelled;
    },
    committed() {
      for (const [name, { digest }] of accepted) {
        if (!result?.survivors.includes(name)) continue;
        const verdict = { type: 'verdict', round, update: digest, accepted: true } as const;
        // Who misses it announces its update again, and hears then that it is in the model.
        void roster.members
          .get(name)
          ?.channel?.call(verdict, 'ok')
          .catch(() => undefined);
      }
    },
  };
}

/**
 * Those for whom an attempt has failed. By word against word nobody is thrown out: with fewer accusers than sites may be
 * missing, it would not have failed.
 */
function blamed(error: PrivacyError, { accusers, spare }: Attempt): string[] {
  const accused = [...accusers].filter(([, by]) => by.size > spare).map(([name]) => name);
  return error.site === undefined ? accused : [error.site, ...accused];
}

function keysMessage({ site, ...keys }: KeysMessage) {
  return { site, ...keysToText(keys) };
}

function maskMessage(attempt: string, { sharers, envelopes }: Delivery): MessageOf<'mask'> {
  return {
    type: 'mask',
    attempt,
    sharers: [...sharers],
    envelopes: envelopes.map(({ from, sealed }) => ({ from, sealed: bytesToText(sealed) })),
  };
}

async function addMasked(
  secagg: SecaggCoordinator,
  site: string,
  { offer, path }: MaskedOffer & { readonly path: string },
): Promise<void> {
  const file = await open(path, 'r');
  try {
    const masked = secagg.beginMasked(site, offer.update.bytes);
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length);
      if (bytesRead === 0) break;
      masked.write(buffer.subarray(0, bytesRead));
    }
    masked.finish();
  } finally {
    await file.close();
  }
}

/** The mean, over the memory of the sums. */
function meanOf(
  { sums, totalWeight, survivors }: SecaggResult,
  fixedPoint: SecaggCoordinator['plan']['fixedPoint'],
): MeanUpdate {
  const mean = new Float32Array(sums.buffer, sums.byteOffset, sums.length);
  decodeMean(sums, totalWeight, fixedPoint, mean);
  return {
    updates: survivors.length,
    totalWeight: totalWeight * fixedPoint.examplesPerWeight,
    read: (offset, out) => out.set(mean.subarray(offset, offset + out.length)),
  };
}
