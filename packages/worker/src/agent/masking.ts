/**
 * This site's part in secure aggregation: a trained update stays here, and what leaves is masked together with the others'
 * (ADR 0009). Each attempt has keys of its own; a stage that is asked for again gets the answer that it had.
 */
import { createHash } from 'node:crypto';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as breathe } from 'node:timers/promises';
import { PrivacyError, type SecaggSettings, SecaggSite, settingsOfRound } from '@tributary/privacy';
import {
  bytesToText,
  type Channel,
  crashPoint,
  errorCode,
  type FederationView,
  type FrameHeader,
  keyFingerprint,
  keysToBytes,
  keysToText,
  type Message,
  type MessageOf,
  ProtocolError,
  parameterCount,
  readFrameHeader,
  type SecureAggregationPlan,
  type SigningKey,
  sharedNoiseOf,
  textToBytes,
} from '@tributary/shared-protocol';
import { z } from 'zod';
import { WorkerError } from '../errors.ts';
import type { Guard } from '../policy/guard.ts';
import { type AppendOnly, openAppendOnly } from './append-only.ts';
import type { Delivery } from './delivery.ts';
import type { EmitWorkerEvent } from './events.ts';
import type { Peer, Peers } from './peers.ts';
import { type RoomOptions, withRoom } from './room.ts';
import type { Spool, SpooledUpdate } from './spool.ts';

type Stage =
  | MessageOf<'advertise'>
  | MessageOf<'share'>
  | MessageOf<'mask'>
  | MessageOf<'agree'>
  | MessageOf<'unmask'>;

export interface Masking {
  /**
   * Answers a stage. Rejects with FED_WORKER_ATTEMPT for an attempt that this site has no keys of, and with what speaks
   * against taking part: PrivacyError, PolicyError, FED_WORKER_PEER.
   */
  answer(message: Stage, channel: Channel): Promise<Message>;
  /** Forgets all secrets. */
  close(): Promise<void>;
}

export interface MaskingOptions {
  readonly federation: FederationView;
  readonly secure: SecureAggregationPlan;
  readonly name: string;
  readonly key: SigningKey;
  readonly spool: Spool;
  readonly delivery: Delivery;
  readonly guard: Guard;
  readonly peers: Peers;
  readonly sums: SignedSums;
  /** Where a masked update lies until it is delivered. */
  readonly directory: string;
  readonly now: () => number;
  readonly emit: EmitWorkerEvent;
}

interface Attempt {
  readonly id: string;
  readonly entry: SpooledUpdate;
  readonly site: SecaggSite;
  readonly path: string;
  /** Aborted once it is forgotten. */
  readonly over: AbortController;
  /** By stage: what was answered, or is being. */
  readonly answers: Map<Stage['type'], Promise<Message>>;
  /** Resolves once the masked update lies at `path`. */
  masked: Promise<void> | undefined;
}

const sumSchema = z.strictObject({
  /** Unix millis. */
  at: z.number(),
  round: z.int().min(0),
  /** Digest of the global model. */
  base: z.string(),
  survivors: z.array(z.string()),
});
/** The sums that this site has signed: of one update never two, for their difference would be one site's update. */
export type SignedSums = AppendOnly<z.infer<typeof sumSchema>>;

export function openSignedSums(path: string): SignedSums {
  return openAppendOnly({
    path,
    schema: sumSchema,
    what: 'the list of the sums that this site has signed',
    otherwise: {
      unwritten: 'none is signed until it can',
      forgotten: 'of one update this site must not sign two sums',
    },
  });
}

/** Values masked between two looks at what else is to be done. */
const PIECE_VALUES = 262_144;
const FIRST_READ_BYTES = 65_536;
/** The next attempt waits for this one to begin, and the coordinator for a minute. */
const PIN_PATIENCE_MS = 30_000;

export function createMasking(options: MaskingOptions): Masking {
  const { federation, secure, name, key, spool, delivery, guard, peers, sums, directory, now, emit } =
    options;
  let current: Attempt | undefined;
  /** One attempt begins after the other: of two that came together, one would be forgotten with its secrets. */
  let begun: Promise<void> = Promise.resolve();

  async function begin({ attempt, round, base, cohort }: MessageOf<'advertise'>): Promise<void> {
    if (current?.id === attempt) return;
    const entry = spool.find({ task: 'train', round, base });
    if (entry?.task !== 'train')
      throw new WorkerError(
        'FED_WORKER_ATTEMPT',
        `this site has no update of round ${round} from that model`,
      );
    const others = cohort.filter((peer) => peer.name !== name);
    checkSelf(cohort.filter((peer) => peer.name === name));
    const fewest = guard.checkMaskingCohort(others, entry);
    const settings: SecaggSettings = settingsOfRound(
      {
        ...secure,
        weighting: federation.weighting ?? 'examples',
        shares: sharedNoiseOf(federation.privacy),
      },
      {
        run: federation.runId,
        round,
        attempt,
        cohort: cohort.map((peer) => peer.name),
        parameters: await countParameters(spool.updatePath(entry), entry.bytes),
        modelDigest: base,
        configurationDigest: federation.configDigest,
      },
    );
    const sign = (bytes: Uint8Array) => textToBytes(key.signBytes(bytes));
    const roster = new Map(cohort.map((peer) => [peer.name, peer.publicKey]));
    const site = new SecaggSite({ settings, site: name, roster, sign, minCohort: fewest });
    const over = new AbortController();
    const room = { ...roomFor({ entry, over }, 'the keys of the sites'), patienceMs: PIN_PATIENCE_MS };
    // Of a cohort that this site takes no part in, it pins nobody.
    await withRoom(() => peers.pin(others), room);
    await forget();
    const path = join(directory, `${String(round).padStart(6, '0')}-${attempt}.masked`);
    current = { id: attempt, entry, site, path, over, answers: new Map(), masked: undefined };
  }

  function checkSelf(shown: readonly Peer[]): void {
    if (shown.length === 1 && shown[0]!.publicKey === key.publicKey) return;
    const keys = shown.map(({ publicKey }) => keyFingerprint(publicKey)).join(' and ') || 'no key';
    throw new WorkerError(
      'FED_WORKER_PEER',
      `the coordinator shows ${keys} for this site itself, whose key is ${keyFingerprint(key.publicKey)}; ask the lead`,
    );
  }

  async function forget(): Promise<void> {
    const former = current;
    current = undefined;
    if (!former) return;
    former.site.abort();
    former.over.abort(new Error('another attempt of the secure sum has begun'));
    await former.masked?.catch(() => undefined);
    delivery.forgetMasked(former.entry);
    await rm(former.path, { force: true });
  }

  async function step(attempt: Attempt, message: Exclude<Stage, { type: 'mask' }>): Promise<Message> {
    const { site, entry } = attempt;
    switch (message.type) {
      case 'advertise': {
        const { site: _, ...keys } = site.advertiseKeys();
        return { type: 'advertised', ...keysToText(keys) };
      }
      case 'share': {
        const keys = message.keys.map(({ site: of, ...theirs }) => ({ site: of, ...keysToBytes(theirs) }));
        const { envelopes } = site.shareKeys(keys);
        return {
          type: 'shared',
          envelopes: envelopes.map(({ to, sealed }) => ({ to, sealed: bytesToText(sealed) })),
        };
      }
      case 'agree': {
        const { survivors } = message;
        const { round, base } = entry;
        const before = sums.entries.find((sum) => sum.round === round && sum.base === base);
        if (before && before.survivors.join('\n') !== survivors.join('\n')) {
          site.abort();
          throw new PrivacyError(
            'FED_PRIVACY_SECAGG_SETS',
            `this site has signed the sum of ${before.survivors.join(', ')} for round ${round}, and signs no other: the difference would tell of single updates`,
          );
        }
        const { signature } = site.signSurvivors(survivors);
        try {
          if (!before)
            await withRoom(
              async () => sums.add({ at: now(), round, base, survivors: [...survivors] }),
              roomFor(attempt, 'the signed sum'),
            );
        } catch (error) {
          // It would unmask what it could not write down.
          site.abort();
          throw error;
        }
        crashPoint('agent:secagg-signed');
        return { type: 'agreed', signature: bytesToText(signature) };
      }
      case 'unmask': {
        const signatures = message.signatures.map(({ site: of, signature }) => ({
          site: of,
          signature: textToBytes(signature),
        }));
        const { seedShares, maskKeyShares } = site.unmask({ survivors: message.survivors, signatures });
        crashPoint('agent:secagg-unmasked');
        const shares = (list: typeof seedShares) =>
          list.map(({ of, share }) => ({ of, share: bytesToText(share) }));
        return {
          type: 'unmasked',
          seedShares: shares(seedShares),
          maskKeyShares: shares(maskKeyShares),
        };
      }
    }
  }

  /** Writes the masked update beside the spool, and breathes between its pieces: heartbeats go on. */
  async function mask(attempt: Attempt, { sharers, envelopes }: MessageOf<'mask'>): Promise<void> {
    const { site, entry, path } = attempt;
    const delivered = {
      sharers,
      envelopes: envelopes.map(({ from, sealed }) => ({ from, sealed: textToBytes(sealed) })),
    };
    // Where all weigh the same, each counts as one example.
    const masker = site.beginMask(delivered, federation.weighting === 'uniform' ? 1 : entry.numExamples);
    crashPoint('agent:secagg-mask');
    let end = 0;
    const append = async (bytes: Uint8Array) => {
      await withRoom(() => writeAt(path, bytes, end), roomFor(attempt, 'the masked update'));
      end += bytes.length;
    };
    try {
      for await (const values of piecesOf(spool.updatePath(entry), entry.bytes)) {
        await append(masker.write(values));
        await breathe();
      }
      const { packed, clippedFraction } = masker.finish();
      await append(packed);
      emit({ type: 'masked', round: entry.round, sites: sharers.length, clippedFraction });
    } finally {
      masker.abort();
    }
  }

  function roomFor({ entry, over }: Pick<Attempt, 'entry' | 'over'>, what: string): RoomOptions {
    const onLog = (message: string) => emit({ type: 'log', message });
    return { what: `${what} of round ${entry.round}`, onLog, signal: over.signal };
  }

  /** Masks once, and offers what it made on every link on which it is asked for. */
  async function deliver(attempt: Attempt, message: MessageOf<'mask'>, channel: Channel): Promise<void> {
    const { entry, path, id } = attempt;
    try {
      attempt.masked ??= mask(attempt, message);
      await attempt.masked;
      if (current === attempt) await delivery.offerMasked(entry, { path, attempt: id }, channel);
    } catch (error) {
      const code = errorCode(error) ?? 'FED_INTERNAL';
      // On the next link it is asked for again, and is made already.
      if (code.startsWith('FED_TRANSPORT_')) return;
      attempt.site.abort();
      const reason = (error as Error).message;
      const accused = error instanceof PrivacyError && error.site ? { accused: error.site } : {};
      emit({ type: 'failed', task: 'train', round: entry.round, code, reason });
      await channel
        .call({ type: 'failure', task: 'train', round: entry.round, code, reason, ...accused }, 'ok')
        .catch(() => undefined);
    }
  }

  return {
    async answer(message, channel) {
      if (message.type === 'advertise') {
        const done = begun.then(() => begin(message));
        begun = done.catch(() => undefined);
        await done;
      }
      const attempt = current;
      if (attempt === undefined || attempt.id !== message.attempt)
        throw new WorkerError(
          'FED_WORKER_ATTEMPT',
          'this site has no keys of that attempt of the secure sum any more',
        );
      if (message.type === 'mask') {
        void deliver(attempt, message, channel);
        return { type: 'ok' };
      }
      const answered = attempt.answers.get(message.type) ?? step(attempt, message);
      attempt.answers.set(message.type, answered);
      return await answered;
    },
    close: forget,
  };
}

async function writeAt(path: string, bytes: Uint8Array, start: number): Promise<void> {
  const file = await open(path, start === 0 ? 'w' : 'r+', 0o600);
  try {
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await file.write(bytes, done, bytes.length - done, start + done);
      done += bytesWritten;
    }
  } finally {
    await file.close();
  }
}

/** The header of a frame's file. */
async function headerOf(file: FileHandle, bytes: number): Promise<FrameHeader> {
  for (let length = FIRST_READ_BYTES; ; length *= 4) {
    const prefix = Buffer.alloc(Math.min(length, bytes));
    await readAt(file, prefix, 0);
    const header = readFrameHeader(prefix, bytes);
    if (header) return header;
    if (prefix.length === bytes) throw new Error('an update ends within its header');
  }
}

/** Values of the update in a frame's file. */
async function countParameters(path: string, bytes: number): Promise<number> {
  const file = await open(path, 'r');
  try {
    const { tensors } = await headerOf(file, bytes);
    return parameterCount(tensors);
  } finally {
    await file.close();
  }
}

/**
 * The values of the update in a frame's file, one tensor after the other; each piece is good until the next. Throws
 * FED_PROTOCOL_FRAME_DIGEST after the last piece of a tensor whose bytes have changed.
 */
async function* piecesOf(path: string, bytes: number): AsyncGenerator<Float32Array> {
  const memory = new Uint8Array(PIECE_VALUES * Float32Array.BYTES_PER_ELEMENT);
  const file = await open(path, 'r');
  try {
    for (const { name, offset, byteLength, digest } of (await headerOf(file, bytes)).tensors) {
      const hash = createHash('sha256');
      for (let start = 0; start < byteLength; start += memory.length) {
        const piece = memory.subarray(0, Math.min(memory.length, byteLength - start));
        await readAt(file, piece, offset + start);
        hash.update(piece);
        yield new Float32Array(memory.buffer, 0, piece.length / Float32Array.BYTES_PER_ELEMENT);
      }
      if (hash.digest('hex') !== digest)
        throw new ProtocolError(
          'FED_PROTOCOL_FRAME_DIGEST',
          `${path}: the bytes of tensor "${name}" have changed since it was trained; this disk is not to be trusted`,
        );
    }
  } finally {
    await file.close();
  }
}

async function readAt(file: FileHandle, into: Uint8Array, start: number): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const { bytesRead } = await file.read(into, done, into.length - done, start + done);
    if (bytesRead === 0) throw new Error(`an update ends after ${start + done} bytes`);
    done += bytesRead;
  }
}
