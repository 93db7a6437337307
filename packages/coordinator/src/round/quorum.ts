/** The wait before a round: until enough sites are ready, saying who is here and what happens next. */
import type { RunContext } from './context.ts';
import { RoundFailed } from './gathering.ts';

/** The sites that are ready once there are enough of them, sorted. Rejects with the signal's reason, or RoundFailed. */
export function waitForQuorum(context: RunContext, round: number): Promise<string[]> {
  const { federation, roster, signal, now } = context;
  const { quorum } = federation.cohort;
  const giveUpAt = now() + federation.deadlines.quorumSeconds * 1000;
  let told = '';

  return new Promise((resolve, reject) => {
    const look = () => {
      const here = roster.ready();
      if (here.length >= quorum) {
        finish();
        resolve(here);
        return;
      }
      if (told === here.join() && told !== '') return;
      told = here.join();
      const missing = quorum - here.length;
      context.emit({
        type: 'waiting',
        round,
        here,
        missing,
        next: `round ${round} starts when ${missing} more ${missing === 1 ? 'site is' : 'sites are'} ready${awayHint(context)}; without them the run ends at ${new Date(giveUpAt).toISOString()}`,
      });
    };
    const onAbort = () => {
      finish();
      reject(signal.reason);
    };
    const timer = setTimeout(
      () => {
        finish();
        const here = roster.ready();
        reject(
          new RoundFailed(
            `round ${round} waited ${federation.deadlines.quorumSeconds} s for ${quorum} sites and has ${here.length} (${here.join(', ') || 'none'}); start the same command again when they are there`,
          ),
        );
      },
      Math.min(2 ** 31 - 1, federation.deadlines.quorumSeconds * 1000),
    );
    const forget = roster.onChange(look);
    function finish() {
      clearTimeout(timer);
      forget();
      signal.removeEventListener('abort', onAbort);
    }
    if (signal.aborted) onAbort();
    else {
      signal.addEventListener('abort', onAbort, { once: true });
      look();
    }
  });
}

function awayHint({ roster }: RunContext): string {
  const away = [...roster.members.values()].filter((m) => !m.ready).map((m) => m.name);
  return away.length === 0 ? '' : ` (known and not ready: ${away.sort().join(', ')})`;
}
