/**
 * One attempt to sum the updates of some sites under masks (ADR 0009): five stages, each a question to every site that is
 * still in it. Whoever fails at one is out of the attempt, and the others go on for as long as they are enough. Its keys and
 * secrets are its own: nothing of it is of use to another attempt.
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
  parameterCount,
  type SecureAggregationPlan,
  sharedNoiseOf,
  textToBytes,
} from '@tributary/shared-protocol';
import { CoordinatorError } from '../errors.ts';
import type { Member } from '../members/roster.ts';
import { isStorageError, storageError } from '../run/atomic-file.ts';
import type { AcceptedUpdate } from '../run/records.ts';
import type { MeanUpdate } from '../strategy.ts';
import type { RunContext } from './context.ts';
import { isTransient, type TrainRoundPlan, text } from './gathering.ts';
import { createTurns, pullWindow } from './pull.ts';

export interface SecureSumOptions {
  readonly secure: SecureAggregationPlan;
  readonly plan: TrainRoundPlan;
  /** Who takes part, sorted. */
  readonly names: readonly string[];
  /** The fewest updates from which the round may be made. */
  readonly fewest: number;
  /** Someone is out of the attempt, for this reason; GaveUp where it has said so itself. */
  readonly onDropOut: (name: string, error: unknown) => void;
}

export interface SecureSum {
  /**
   * Plays the attempt. Rejects with PrivacyError when the updates can't be summed, and with what it was aborted with.
   */
  run(): Promise<SummedUpdates>;
  /** Takes what a site offers as its masked update; throws CoordinatorError FED_UPDATE_LATE, FED_UPDATE_SIZE. */
  offer(member: Member, offer: MessageOf<'offer'>): void;
  /** What is due from a site won't come, for this reason. False when nothing is due. */
  fail(name: string, error: unknown): boolean;
  /** A site says that what another one has sent it is useless. */
  accuse(by: string, accused: string): void;
  abort(reason: unknown): void;
  /** Those for whom it has failed with this error. */
  blamed(error: PrivacyError): readonly string[];
}

export interface SummedUpdates {
  readonly mean: MeanUpdate;
  /** Share of the updates' values that were clipped, in [0, 1]. */
  readonly clippedFraction: number;
  /** The masked updates in the sum, by site. */
  readonly accepted: ReadonlyMap<string, AcceptedUpdate>;
}

/** A site has said that it can't mask its update, and why. */
export class GaveUp extends Error {
  override readonly name = 'GaveUp' as const;
}

interface MaskedOffer {
  readonly offer: MessageOf<'offer'>;
  readonly session: string;
}

/** Someone waits for a site's masked update. */
interface Expected {
  take(offer: MaskedOffer): void;
  fail(error: unknown): void;
}

/** A stage waits so long for the answer of a site, and for one that has lost its link. Masking may take longer. */
const STAGE_MS = 60_000;
const MASKING_MS = 600_000;
const READ_BYTES = 1024 * 1024;

export function createSecureSum(context: RunContext, options: SecureSumOptions): SecureSum {
  const { roster, now, state, federation, manifest } = context;
  const { secure, plan, names, fewest } = options;
  const { round, model } = plan;
  const id = newNonce();
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
        parameters: parameterCount(manifest),
        modelDigest: model.digest,
        configurationDigest: federation.digest,
      },
    ),
    roster: keys,
  });
  const { packedBytes, fixedPoint, threshold } = secagg.plan;
  const abort = new AbortController();
  const { signal } = abort;
  /** Of those whose masked update is due. */
  const expected = new Map<string, Expected>();
  /** By site: those who say that what it sent them is useless. */
  const accusers = new Map<string, Set<string>>();
  const accepted = new Map<string, AcceptedUpdate>();
  const turn = createTurns();

  async function run(): Promise<SummedUpdates> {
    const named = names.map((name) => {
      const { keyChanges = [] } = state.members.get(name) ?? {};
      const changes = keyChanges.length > 0 ? { changes: [...keyChanges] } : {};
      return { name, publicKey: keys.get(name)!, ...changes };
    });

    const advertise = { type: 'advertise', attempt: id, round, base: model.digest, cohort: named } as const;
    await stage(names, async (site) => {
      const { type: _, ...answer } = await ask(site, advertise, 'advertised');
      secagg.receiveKeys({ site, ...keysToBytes(answer) });
    });
    const shown = secagg.closeKeys();
    crashPoint('coordinator:secagg-keys');

    const share = { type: 'share', attempt: id, keys: shown.map(keysMessage) } as const;
    await stage(
      shown.map(({ site }) => site),
      async (site) => {
        const { envelopes } = await ask(site, share, 'shared');
        secagg.receiveShares({
          site,
          envelopes: envelopes.map(({ to, sealed }) => ({ to, sealed: textToBytes(sealed) })),
        });
      },
    );
    const deliveries = secagg.closeShares();
    crashPoint('coordinator:secagg-shares');

    await stage([...deliveries.keys()], async (site) => {
      const masked = await fetchMasked(site, maskMessage(id, deliveries.get(site)!));
      try {
        await addMasked(site, masked);
      } finally {
        rmSync(masked.path, { force: true });
      }
      accept(site, masked);
    });
    const survivors = secagg.closeMasked();
    crashPoint('coordinator:secagg-masked');
    if (survivors.length < fewest)
      throw new PrivacyError(
        'FED_PRIVACY_SECAGG_TOO_FEW',
        `${survivors.length} masked updates came, where ${fewest} are needed`,
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

    await stage(survivors, async (site) => {
      const agree: Outgoing = { type: 'agree', attempt: id, survivors: [...survivors] };
      const { signature } = await ask(site, agree, 'agreed');
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
      async (site) => {
        const { seedShares, maskKeyShares } = await ask(site, unmask, 'unmasked');
        const shares = (list: typeof seedShares) =>
          list.map(({ of, share: held }) => ({ of, share: textToBytes(held) }));
        secagg.receiveUnmask({ site, seedShares: shares(seedShares), maskKeyShares: shares(maskKeyShares) });
      },
    );
    crashPoint('coordinator:secagg-unmasked');
    const { sums, totalWeight, clippedFraction } = secagg.finish();
    return {
      mean: meanOf(sums, totalWeight, survivors.length),
      clippedFraction,
      accepted: new Map([...accepted].filter(([name]) => survivors.includes(name))),
    };
  }

  /** One stage: whoever fails in it is out of the attempt, and the others go on. */
  async function stage(names: readonly string[], work: (name: string) => Promise<void>): Promise<void> {
    await Promise.all(
      names.map(async (name) => {
        try {
          await work(name);
        } catch (error) {
          if (isStorageError(error)) throw storageError(context.directory.paths.spool, error);
          if (!signal.aborted) options.onDropOut(name, error);
        }
      }),
    );
    signal.throwIfAborted();
  }

  /** Asks a site, on its next link again when the present one is lost: it answers a stage once, and the same again. */
  async function ask<T extends MessageType>(
    name: string,
    message: Outgoing,
    expect: T,
  ): Promise<MessageOf<T>> {
    const until = now() + STAGE_MS;
    for (;;) {
      const channel = await linkOf(name, until);
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
  function linkOf(name: string, until: number): Promise<Channel> {
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
  async function fetchMasked(name: string, message: Outgoing) {
    const until = now() + MASKING_MS;
    for (;;) {
      const channel = await linkOf(name, until);
      try {
        const offered = expectOffer(name, channel, until);
        offered.catch(() => undefined);
        await channel.call(message, 'ok', { signal, timeoutMs: STAGE_MS });
        const { offer, session } = await offered;
        const path = spoolPath(name, offer.update);
        await mkdir(dirname(path), { recursive: true });
        await turn(async () => {
          const sink = await openFileSink(path, offer.update);
          await fetchBlob(channel, offer.update, sink, {
            signal,
            window: pullWindow(names.length),
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
        expected.delete(name);
      }
    }
  }

  function expectOffer(name: string, channel: Channel, until: number): Promise<MaskedOffer> {
    return new Promise((resolve, reject) => {
      const late = new CoordinatorError(
        'FED_UPDATE_LATE',
        `no masked update came within ${MASKING_MS / 1000} s`,
      );
      const timer = setTimeout(() => reject(late), Math.max(1, until - now()));
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
      expected.set(name, {
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

  function accept(name: string, { offer, session }: MaskedOffer): void {
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

  async function addMasked(
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
  function meanOf(sums: Uint32Array, totalWeight: number, updates: number): MeanUpdate {
    const mean = new Float32Array(sums.buffer, sums.byteOffset, sums.length);
    decodeMean(sums, totalWeight, fixedPoint, mean);
    return {
      updates,
      totalWeight: totalWeight * fixedPoint.examplesPerWeight,
      read: (offset, out) => out.set(mean.subarray(offset, offset + out.length)),
    };
  }

  return {
    run,
    offer({ name, session }, offer) {
      const { attempt, update, numExamples, metrics } = offer;
      const due = attempt === id ? expected.get(name) : undefined;
      if (!due) throw new CoordinatorError('FED_UPDATE_LATE', 'that attempt of the secure sum is over');
      if (update.bytes !== packedBytes || numExamples !== undefined || Object.keys(metrics).length > 0)
        throw new CoordinatorError(
          'FED_UPDATE_SIZE',
          `a masked update is ${packedBytes} bytes and nothing beside; ${update.bytes} were declared`,
        );
      // The receipt goes out first: the site serves chunks only once it has it.
      setImmediate(() => due.take({ offer, session }));
    },
    fail(name, error) {
      const due = expected.get(name);
      due?.fail(error);
      return due !== undefined;
    },
    accuse(by, accused) {
      accusers.set(accused, (accusers.get(accused) ?? new Set()).add(by));
    },
    abort: (reason) => abort.abort(reason),
    blamed({ site }) {
      // By word against word nobody is thrown out: with fewer accusers than sites may be missing, it would not have failed.
      const spare = names.length - threshold;
      const accused = [...accusers].filter(([, by]) => by.size > spare).map(([name]) => name);
      return site === undefined ? accused : [site, ...accused];
    },
  };
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
