/**
 * One large update over a bad line that is cut for a while in the middle, beside a site on a good one: the update
 * arrives, no chunk that had arrived is sent again, and the other site never waits.
 */
import { violationsOf } from './invariants.ts';
import type { FederationPlan, RunPlan } from './plan.ts';
import { type Outcome, type PlayOptions, playRun } from './play.ts';
import type { Stage } from './stage.ts';
import type { TransportEvent } from './watched-transport.ts';

export interface SlowLinkOptions {
  readonly updateBytes: number;
  readonly chunkBytes: number;
  readonly bytesPerSecond: number;
  /** One way. */
  readonly delayMs: number;
  readonly lossRate: number;
  /** How long nothing passes, once half of the update has been sent. */
  readonly cutMs: number;
  readonly heartbeatSeconds: number;
}

export interface SlowLinkReport {
  readonly violations: readonly string[];
  readonly chunks: number;
  /** Chunks that were asked for, over all links. */
  readonly asked: number;
  /** Links that the update came over. */
  readonly links: number;
  /** Of the update: from the first chunk asked for to its acceptance, in millis. */
  readonly transferMs: number;
  /** The worst of the other site's heartbeats, and how many there were. */
  readonly worstRoundTripMs: number;
  readonly roundTrips: number;
}

const MIB = 1024 * 1024;
/** The issue's own numbers. 10 Mbit/s are 1.25 million bytes a second; 200 ms there and back. */
export const SLOW_LINK: SlowLinkOptions = {
  updateBytes: 100 * MIB,
  chunkBytes: MIB,
  bytesPerSecond: 1_250_000,
  delayMs: 100,
  lossRate: 0.01,
  cutMs: 180_000,
  heartbeatSeconds: 5,
};
export const MAX_ROUND_TRIP_MS = 2000;

const FOR_EVER_MS = 2 ** 31 - 1;

export async function playSlowLink(
  stage: Stage,
  options: SlowLinkOptions,
  play: PlayOptions = {},
): Promise<SlowLinkReport> {
  const { updateBytes, chunkBytes, bytesPerSecond, delayMs, lossRate, cutMs } = options;
  const federation: FederationPlan = {
    id: -1,
    sites: ['harbour', 'island'],
    realTrainer: false,
    masked: false,
    rounds: 1,
    modelBytes: updateBytes,
    chunkBytes,
    trainMs: 0,
    strategy: 'fed-avg',
    watched: { heartbeatSeconds: options.heartbeatSeconds },
  };
  const chunks = Math.ceil(updateBytes / chunkBytes);
  const spooled = { on: 'harbour', event: 'spooled', nth: 1, plusMs: 0 } as const;
  const half = { on: 'harbour', event: 'sending', nth: Math.ceil(chunks / 2), plusMs: 0 } as const;
  const plan: RunPlan = {
    seed: 0,
    run: 0,
    transport: 'socketio',
    federation,
    faults: [
      { kind: 'slow line', victim: 'harbour', bytesPerSecond, when: spooled, forMs: FOR_EVER_MS },
      { kind: 'delay', victim: 'harbour', delayMs, jitterMs: 0, when: spooled, forMs: FOR_EVER_MS },
      { kind: 'loss', victim: 'harbour', lossRate, when: spooled, forMs: FOR_EVER_MS },
      { kind: 'partition', victim: 'harbour', when: half, forMs: cutMs },
    ],
  };
  const outcome = await playRun(plan, stage, play);
  const { asked, here } = chunksOf(outcome);
  const roundTrips = outcome.events.flatMap(({ name, event }) => {
    const one = event as unknown as TransportEvent;
    return name === 'island' && one.type === 'round-trip' ? [one.ms] : [];
  });
  const worstRoundTripMs = Math.max(...roundTrips);
  const accepted = outcome.events.find(
    ({ name, event }) => name === 'harbour' && ['accepted', 'refused'].includes(event.type),
  );
  const violations = [...violationsOf(outcome, undefined)];
  for (const { index, ms } of asked) {
    if (index < acknowledgedBy(ms, here)) {
      violations.push(
        `chunk ${index} was asked for again at ${(ms / 1000).toFixed(1)} s, when it had arrived`,
      );
    }
  }
  const links = new Set(asked.map(({ link }) => link)).size;
  if (links < 2) violations.push('the update came over one link: the cut was none');
  if (worstRoundTripMs >= MAX_ROUND_TRIP_MS) {
    violations.push(`a heartbeat of the other site took ${worstRoundTripMs.toFixed(0)} ms`);
  }
  return {
    violations,
    chunks: 1 + Math.max(...asked.map(({ index }) => index)),
    asked: asked.length,
    links,
    transferMs: (accepted?.ms ?? Number.NaN) - (asked[0]?.ms ?? Number.NaN),
    worstRoundTripMs,
    roundTrips: roundTrips.length,
  };
}

/** How many chunks from the first on had arrived by then: these are taken, one behind a gap is not yet. */
function acknowledgedBy(ms: number, here: readonly Chunk[]): number {
  const arrived = new Set(here.filter((one) => one.ms < ms).map(({ index }) => index));
  let count = 0;
  while (arrived.has(count)) count++;
  return count;
}

interface Chunk {
  readonly link: string;
  readonly index: number;
  readonly ms: number;
}

/** Which chunks of the slow site's update were asked for, as it saw it, and when each arrived at the coordinator. */
function chunksOf({ events }: Outcome): { readonly asked: Chunk[]; readonly here: Chunk[] } {
  const found = { asked: [] as Chunk[], here: [] as Chunk[] };
  let digest: string | undefined;
  for (const { ms, name, event } of events) {
    const one = event as unknown as TransportEvent;
    if (name === 'harbour' && one.type === 'chunk-asked') {
      digest = one.digest;
      found.asked.push({ link: one.link, index: one.index, ms });
    } else if (name === 'coordinator' && one.type === 'chunk-here' && one.digest === digest) {
      found.here.push({ link: one.link, index: one.index, ms });
    }
  }
  return found;
}
