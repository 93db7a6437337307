/**
 * The keys that this site knows the others of its run by, for secure aggregation: pinned when it first meets them, or
 * written into its policy. Another key for a known site is believed only with that site's own signatures for the change.
 */
import { isProvenKeyChange, type KeyChange, keyFingerprint } from '@tributary/shared-protocol';
import { z } from 'zod';
import { WorkerError } from '../errors.ts';
import { readText, writeFileAtomic } from './atomic-file.ts';

const fileSchema = z.record(z.string(), z.string());

export interface Peer {
  readonly name: string;
  /** Base64url of its Ed25519 key. */
  readonly publicKey: string;
  /** How it came to that, oldest first. */
  readonly changes?: readonly KeyChange[] | undefined;
}

export interface Peers {
  /**
   * Resolves when each of a cohort is known by the key that is shown for it; who was not known, or has changed its key, is
   * pinned, durably. Rejects with FED_WORKER_PEER for a key that is neither the pinned one nor signed for by it.
   */
  pin(cohort: readonly Peer[]): Promise<void>;
}

/** Opens the pins at `path`, which need not be there yet. Rejects with FED_WORKER_STATE_UNUSABLE for a damaged file. */
export async function openPeers(path: string, runId: string, onNew: (peer: Peer) => void): Promise<Peers> {
  const pinned = new Map(Object.entries(await read(path)));
  return {
    async pin(cohort) {
      const strangers = cohort.filter((peer) => {
        const { name, publicKey } = peer;
        const known = pinned.get(name);
        if (known === publicKey) return false;
        if (known === undefined || keyAfter(peer, known, runId) === publicKey) return true;
        throw new WorkerError(
          'FED_WORKER_PEER',
          `the coordinator shows the key ${keyFingerprint(publicKey)} for site "${name}", and it had ${keyFingerprint(known)} before, without that one's signature for the change. Ask that site; if it has lost its key, take its line out of ${path}`,
        );
      });
      if (strangers.length > 0) {
        const next = new Map([
          ...pinned,
          ...strangers.map(({ name, publicKey }) => [name, publicKey] as const),
        ]);
        await writeFileAtomic(path, `${JSON.stringify(Object.fromEntries(next), undefined, 2)}\n`, 0o600);
        for (const peer of strangers) {
          pinned.set(peer.name, peer.publicKey);
          onNew(peer);
        }
      }
    },
  };
}

/** The key that a site has after the changes that follow `known`, as far as they are signed by both keys of each. */
function keyAfter({ name, changes = [] }: Peer, known: string, runId: string): string {
  let key = known;
  for (const change of changes)
    if (change.former === key && isProvenKeyChange(change, { runId, name })) key = change.key;
  return key;
}

async function read(path: string): Promise<Record<string, string>> {
  const text = await readText(path);
  if (text === undefined) return {};
  try {
    return fileSchema.parse(JSON.parse(text));
  } catch (error) {
    throw new WorkerError(
      'FED_WORKER_STATE_UNUSABLE',
      `${path}: the keys of the other sites can't be read (${(error as Error).message}); restore it from a copy`,
      { cause: error },
    );
  }
}
