/** What a coordinator does while another leads: it fetches each checkpoint that the log comes to name. */
import type { JetStreamClient, JetStreamManager } from '@nats-io/jetstream';
import type { LogRecord } from '../run/log.ts';
import { modelsIn, type StoredCheckpoints } from './checkpoints.ts';
import type { StoreNames } from './names.ts';
import { pause } from './patience.ts';
import type { LeadOptions } from './store.ts';
import { readFrom } from './stored-log.ts';

const LOOK_MS = 2000;

/**
 * Resolves soon after the signal is aborted; never rejects. What it could not fetch, the one that takes over fetches, or
 * says why that can't be done.
 */
export async function followRun(
  store: {
    readonly js: JetStreamClient;
    readonly jsm: JetStreamManager;
    readonly names: StoreNames;
    readonly checkpoints: StoredCheckpoints;
  },
  { paths, federation }: NonNullable<LeadOptions['follow']>,
  signal: AbortSignal,
): Promise<void> {
  const { js, jsm, names, checkpoints } = store;
  let at = 0;
  while (!signal.aborted) {
    try {
      const { state } = await jsm.streams.info(names.stream);
      const lines = (await readFrom(js, names.stream, at + 1, state.last_seq)).filter(
        (line) => line.byteLength > 0,
      );
      const records = lines.map((line) => JSON.parse(Buffer.from(line).toString('utf8')) as LogRecord);
      // Of another configuration: that is told when it is taken over.
      if (records.some(({ config }) => config !== federation.digest)) return;
      for (const one of modelsIn(records)) await checkpoints.fetch(paths, one, federation, signal);
      at = state.last_seq;
    } catch {
      // The server is away for a moment, or something is wrong with the store: see above.
    }
    await pause(LOOK_MS, signal);
  }
}
