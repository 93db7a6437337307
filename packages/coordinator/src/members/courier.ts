/** Brings each site the lines of the log that concern it, over its link, in order, and a few at a time. */
import type { Channel } from '@tributary/shared-protocol';
import type { Chronicle } from './chronicle.ts';

export interface Courier {
  /** From now on `name` is told over `channel` what comes after the record that it has; -1 when it has none. */
  begin(channel: Channel, name: string, after: number): void;
  /** Resolves when the site of that link has been told all that there is, or can't be told. */
  idle(channel: Channel): Promise<void>;
}

/** One message; a site must be able to take it. */
const MAX_BYTES = 256 * 1024;
/** A site that does not take its lines for this long is told them on its next link. */
const PATIENCE_MS = 30_000;

export function createCourier(chronicle: Chronicle): Courier {
  const rounds = new Map<
    Channel,
    { readonly name: string; after: number; busy: Promise<void> | undefined }
  >();
  chronicle.onGrowth(() => {
    for (const channel of rounds.keys()) tell(channel);
  });

  function tell(channel: Channel): void {
    const round = rounds.get(channel);
    if (!round || round.busy) return;
    round.busy = deliver(channel, round)
      .catch(() => {
        // Its next link begins with what it has not got.
        rounds.delete(channel);
      })
      .finally(() => {
        round.busy = undefined;
        // What was written while the last answer was on its way through this program.
        if (chronicle.linesFor(round.name, round.after, 1).length > 0) tell(channel);
      });
  }

  async function deliver(channel: Channel, round: { readonly name: string; after: number }): Promise<void> {
    for (;;) {
      const due = chronicle.linesFor(round.name, round.after, MAX_BYTES);
      const last = due.at(-1);
      if (!last) return;
      const lines = due.map(({ line }) => line);
      await channel.call({ type: 'records', lines }, 'ok', { timeoutMs: PATIENCE_MS });
      round.after = last.seq;
    }
  }

  return {
    begin(channel, name, after) {
      rounds.set(channel, { name, after, busy: undefined });
      void channel.closed.then(() => rounds.delete(channel));
      tell(channel);
    },
    async idle(channel) {
      await rounds.get(channel)?.busy;
    },
  };
}
