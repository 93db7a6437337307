/** Fetches one offered update into the spool; its header is judged as soon as it is here, before the rest is asked for. */
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import {
  type BlobRef,
  type BlobSink,
  type Channel,
  crashPoint,
  fetchBlob,
  openFileSink,
  readFrameHeader,
} from '@tributary/shared-protocol';
import { checkManifest } from '../aggregate/update-file.ts';
import type { TensorShape } from '../config/resolve.ts';
import { fileDigest } from './file-digest.ts';

/** An update may be this much larger than its tensors: header, names, padding. */
export const HEADER_SLACK_BYTES = 1024 * 1024;

export interface PullOptions {
  readonly channel: Channel;
  readonly ref: BlobRef;
  readonly path: string;
  readonly manifest: readonly TensorShape[];
  readonly signal: AbortSignal;
  /** Chunks asked for ahead of the one that is due. */
  readonly window: number;
  readonly onProgress: (bytes: number) => void;
}

/**
 * Resolves when the whole update lies at `path`, its SHA-256 checked. What had arrived before a lost link is kept
 * and not fetched again.
 *
 * @throws CoordinatorError FED_UPDATE_MANIFEST; ProtocolError FED_PROTOCOL_* and FED_TRANSPORT_*; the signal's reason
 */
export async function pullUpdate({
  channel,
  ref,
  path,
  manifest,
  signal,
  window,
  onProgress,
}: PullOptions): Promise<void> {
  if (existsSync(path) && (await fileDigest(path)) === ref.digest) return;
  await mkdir(dirname(path), { recursive: true });
  const sink = guardHeader(await openFileSink(path, ref), ref, manifest);
  await fetchBlob(channel, ref, sink, { signal, window, onProgress });
  crashPoint('coordinator:after-update-spooled');
}

/** Passes bytes on to `sink`, and throws at the first chunk by which the header shows that the update does not fit. */
function guardHeader(sink: BlobSink, ref: BlobRef, manifest: readonly TensorShape[]): BlobSink {
  // After a resume the beginning is not seen again; the header is then checked when the file is whole.
  let prefix: Uint8Array | undefined = sink.resumeAtChunk === 0 ? new Uint8Array(0) : undefined;
  return {
    get resumeAtChunk() {
      return sink.resumeAtChunk;
    },
    write(bytes, offset) {
      if (prefix) {
        prefix = prefix.length === 0 ? bytes : Buffer.concat([prefix, bytes]);
        const header = readFrameHeader(prefix, ref.bytes);
        if (header) {
          checkManifest(header, manifest);
          prefix = undefined;
        }
      }
      crashPoint('coordinator:update-chunk');
      return sink.write(bytes, offset);
    },
    finish: (digest) => sink.finish(digest),
    async restart() {
      prefix = new Uint8Array(0);
      await sink.restart?.();
    },
    async close() {
      await sink.close?.();
    },
  };
}
