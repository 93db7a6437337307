/**
 * What a run is: a federation out of a small pool, and faults, each with its moment. All of it follows from the seed
 * and the run's number. The pool is small so that its undisturbed runs, which say what the weights must be, are few.
 */
import { createDraw, type Draw } from './random.ts';
import { TRANSPORTS, type TransportName } from './transports.ts';

export const SITE_NAMES = ['harbour', 'island', 'meadow', 'ridge'] as const;
export type SiteName = (typeof SITE_NAMES)[number];
export type Party = 'coordinator' | SiteName;
/**
 * `trainer` is that of the first site, where it is a process of its own. Of two coordinators, a signal to `coordinator`
 * goes to the one that leads, and one to `standby` to the other.
 */
export type Victim = Party | 'trainer' | 'broker' | 'standby';

export interface FederationPlan {
  readonly id: number;
  readonly sites: readonly SiteName[];
  /** Whether the first site trains in earnest, in its trainer process; all others compute an exact stand-in. */
  readonly realTrainer: boolean;
  readonly rounds: number;
  /** Of the model's tensors, about. */
  readonly modelBytes: number;
  readonly chunkBytes: number;
  /** How long the stand-in takes over its work. */
  readonly trainMs: number;
  readonly strategy: 'fed-avg' | 'fed-adam';
  /** Whether updates are summed under masks. */
  readonly masked: boolean;
  /** Of a scenario that looks at chunks and round trips: every process reports them. */
  readonly watched?: { readonly heartbeatSeconds: number };
}

/** When a fault strikes: at a time of the run, or so long after a process has said something for the `nth` time. */
export type Moment =
  | { readonly atMs: number }
  | { readonly on: Party; readonly event: string; readonly nth: number; readonly plusMs: number };

export type Fault = { readonly when: Moment } & (
  | { readonly kind: 'kill'; readonly victim: Victim; readonly restartMs: number }
  | { readonly kind: 'freeze'; readonly victim: Victim; readonly forMs: number }
  /** The disk of the run directory or of a site's state folder has `slackBytes` left, for a time. */
  | {
      readonly kind: 'full disk';
      readonly victim: Party;
      readonly slackBytes: number;
      readonly forMs: number;
    }
  /** A line: of a site, and where there is a broker, of the coordinator. */
  | { readonly kind: 'cut'; readonly victim: Party }
  | { readonly kind: 'partition'; readonly victim: Party; readonly forMs: number }
  | {
      readonly kind: 'delay';
      readonly victim: Party;
      readonly delayMs: number;
      readonly jitterMs: number;
      readonly forMs: number;
    }
  | {
      readonly kind: 'slow line';
      readonly victim: Party;
      readonly bytesPerSecond: number;
      readonly forMs: number;
    }
  | {
      readonly kind: 'loss';
      readonly victim: Party;
      readonly lossRate: number;
      readonly forMs: number;
    }
);

export interface RunPlan {
  readonly seed: number;
  readonly run: number;
  readonly transport: TransportName;
  readonly federation: FederationPlan;
  readonly faults: readonly Fault[];
}

export const POOL_SIZE = 6;
/** Federations of the pool that sum under masks. */
const MASKED_IDS: readonly number[] = [3, 4];
const MAX_FAULTS = 5;
const KIB = 1024;

/** Federation `id` (from 0) of the seed's pool. The last one has a real trainer. */
export function planFederation(seed: number, id: number): FederationPlan {
  const draw = createDraw(seed, `federation ${id}`);
  const realTrainer = id === POOL_SIZE - 1;
  const masked = MASKED_IDS.includes(id);
  // The stand-in needs no images; a real step on a large model would cost more than it shows.
  const modelBytes = realTrainer ? 13 * KIB : Math.round(draw.spread(40 * KIB, 3 * KIB * KIB));
  return {
    id,
    realTrainer,
    masked,
    sites: SITE_NAMES.slice(0, realTrainer ? 2 : draw.whole(masked ? 3 : 2, SITE_NAMES.length)),
    rounds: realTrainer ? 2 : draw.whole(2, 4),
    modelBytes,
    chunkBytes: Math.max(4, Math.ceil(modelBytes / draw.whole(4, 24) / KIB)) * KIB,
    trainMs: draw.whole(150, 700),
    // A server optimizer would make of a rounding error what it makes of a gradient.
    strategy: draw.oneOf(masked ? ['fed-avg'] : ['fed-avg', 'fed-adam']),
  };
}

/** Run `run` (from 1) of the seed, over one of `transports`. */
export function planRun(seed: number, run: number, transports: readonly TransportName[]): RunPlan {
  const transport = createDraw(seed, `transport ${run}`).oneOf(transports);
  const { broker, keepsRun } = TRANSPORTS[transport];
  const around = { broker: broker !== undefined, standby: keepsRun === true };
  const draw = createDraw(seed, `run ${run}`);
  const federation = planFederation(seed, draw.whole(0, POOL_SIZE - 1));
  const count = draw.whole(1, MAX_FAULTS);
  const faults = Array.from({ length: count }, () => drawFault(draw, federation, around));
  return { seed, run, transport, federation, faults };
}

function drawFault(
  draw: Draw,
  federation: FederationPlan,
  { broker, standby }: { readonly broker: boolean; readonly standby: boolean },
): Fault {
  const { sites, modelBytes } = federation;
  const when = drawMoment(draw, federation);
  const line = () => draw.oneOf<Party>(broker ? [...sites, 'coordinator'] : sites);
  const party = () => draw.oneOf<Party>(['coordinator', ...sites]);
  const victim = () =>
    draw.oneOf<Victim>([
      'coordinator',
      ...sites,
      ...(federation.realTrainer ? (['trainer', 'trainer', 'trainer'] as const) : []),
      ...(broker ? (['broker', 'broker'] as const) : []),
      // The leader's death is what the other is there for.
      ...(standby ? (['coordinator', 'coordinator', 'coordinator', 'standby'] as const) : []),
    ]);
  const forMs = (low: number, high: number) => Math.round(draw.spread(low, high));
  const kind = draw.weighted<Fault['kind']>({
    kill: 5,
    freeze: 3,
    'full disk': 2,
    cut: 2,
    partition: 2,
    delay: 1,
    'slow line': 1,
    loss: 1,
  });
  switch (kind) {
    case 'kill':
      return { when, kind, victim: victim(), restartMs: forMs(20, 1000) };
    case 'freeze':
      return { when, kind, victim: victim(), forMs: forMs(100, 8000) };
    case 'full disk':
      return {
        when,
        kind,
        victim: party(),
        slackBytes: draw.oneOf([0, Math.round(draw.spread(KIB, 2 * modelBytes))]),
        forMs: forMs(300, 4000),
      };
    case 'cut':
      return { when, kind, victim: line() };
    case 'partition':
      return { when, kind, victim: line(), forMs: forMs(300, 6000) };
    case 'delay':
      return {
        when,
        kind,
        victim: line(),
        delayMs: draw.whole(20, 300),
        jitterMs: draw.whole(0, 200),
        forMs: forMs(1000, 6000),
      };
    case 'slow line':
      return {
        when,
        kind,
        victim: line(),
        bytesPerSecond: Math.round(modelBytes / draw.number(0.5, 4)),
        forMs: forMs(1000, 6000),
      };
    case 'loss':
      return { when, kind, victim: line(), lossRate: draw.spread(0.002, 0.05), forMs: forMs(1000, 6000) };
  }
}

/** Events on which a fault may strike, and how often one party says them in an undisturbed run, about. */
const COORDINATOR_EVENTS = {
  listening: 'once',
  joined: 'sites',
  ready: 'sites',
  'round-started': 'rounds',
  'update-accepted': 'updates',
  committed: 'rounds',
  finished: 'once',
} as const;
const SITE_EVENTS = {
  joined: 'once',
  ready: 'once',
  planned: 'rounds',
  fetching: 'rounds',
  spooled: 'rounds',
  offered: 'rounds',
  sending: 'rounds',
  accepted: 'rounds',
} as const;

function drawMoment(draw: Draw, { sites, rounds, trainMs, realTrainer, masked }: FederationPlan): Moment {
  if (draw.number(0, 1) < 0.5) {
    // From the start of the first process to about the end of an undisturbed run; a trainer process takes its time.
    const untilReadyMs = realTrainer ? 4000 : 800;
    return { atMs: Math.round(draw.number(0, untilReadyMs + rounds * (trainMs + 250))) };
  }
  const on = draw.oneOf<Party>(['coordinator', ...sites]);
  const events: Readonly<Record<string, 'once' | 'sites' | 'rounds' | 'updates'>> =
    on === 'coordinator'
      ? COORDINATOR_EVENTS
      : // Sites evaluate nothing where their updates are private.
        { ...SITE_EVENTS, [masked ? 'masked' : 'evaluated']: 'rounds' };
  const event = draw.oneOf(Object.keys(events));
  const times = { once: 1, sites: sites.length, rounds, updates: rounds * sites.length }[events[event]!];
  return { on, event, nth: draw.whole(1, times), plusMs: draw.oneOf([0, draw.whole(1, 300)]) };
}

/** A fault in words, for a line of output. */
export function describeFault(fault: Fault): string {
  return `${describeDeed(fault)} ${describeMoment(fault.when)}`;
}

function describeDeed(fault: Fault): string {
  switch (fault.kind) {
    case 'kill':
      return `kill ${fault.victim}`;
    case 'cut':
      return `cut ${fault.victim}`;
    case 'freeze':
    case 'partition':
      return `${fault.kind} ${fault.victim} for ${seconds(fault.forMs)}`;
    case 'delay':
      return `delay ${fault.victim} by ${fault.delayMs} ± ${fault.jitterMs} ms for ${seconds(fault.forMs)}`;
    case 'slow line':
      return `slow ${fault.victim} to ${Math.round(fault.bytesPerSecond / KIB)} KiB/s for ${seconds(fault.forMs)}`;
    case 'loss':
      return `loss of ${(fault.lossRate * 100).toFixed(1)}% at ${fault.victim} for ${seconds(fault.forMs)}`;
    case 'full disk':
      return `disk of ${fault.victim} full but for ${Math.ceil(fault.slackBytes / KIB)} KiB for ${seconds(fault.forMs)}`;
  }
}

function describeMoment(when: Moment): string {
  if ('atMs' in when) return `at ${seconds(when.atMs)}`;
  const times = when.nth === 1 ? '' : ` #${when.nth}`;
  return `on ${when.on}:${when.event}${times}${when.plusMs === 0 ? '' : ` + ${when.plusMs} ms`}`;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
