/**
 * Plays one federation in real processes, kills some of them on the way, and starts each killed one again with the
 * same command, as an init system or a person would. Resolves when all have come to their own end.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type FederationConfig, runPaths } from '@tributary/coordinator';
import { type RunEvent, sha256 } from '@tributary/shared-protocol';
import type { Bundle } from '@tributary/testkit/bundle';
import type { WorkerEvent } from '@tributary/worker';
import type { CoordinatorSetup } from '../e2e/coordinator-process.ts';
import { freePort } from '../e2e/federation.ts';
import { type Party, startParty } from '../e2e/processes.ts';
import type { WorkerSetup } from '../e2e/worker-process.ts';

export const FAST_SITES = { harbour: 'fake', island: 'fake' } as const;
/** One site trains in earnest, in its trainer process. */
export const TRAINER_SITES = { harbour: 'real', island: 'fake' } as const;
/** As few as a sum under masks can be of. */
export const MASKED_SITES = { harbour: 'fake', island: 'fake', meadow: 'fake' } as const;
export type SiteName = keyof typeof MASKED_SITES;
export type Sites = Readonly<Partial<Record<SiteName, 'fake' | 'real'>>>;
export type Name = 'coordinator' | SiteName;
export type ChaosEvent =
  | RunEvent
  | WorkerEvent
  | { readonly type: 'trainer'; readonly pid: number }
  | { readonly type: 'summary' | 'error'; readonly code?: string; readonly message?: string };

/** A kill by the process itself at a named point (`agent:after-fetch`, `coordinator:update-chunk#3`). */
export interface PointKill {
  readonly who: Name;
  readonly at: string;
}
/** A kill from outside, when one of the processes reports something. */
export interface EventKill {
  readonly on: Name;
  readonly when: (event: ChaosEvent) => boolean;
  readonly kill: readonly (Name | 'trainer')[];
}

export interface Outcome {
  readonly runDir: string;
  /** SHA-256 of the last checkpoint: the final weights, to the bit. */
  readonly weights: string;
  /** Processes that were killed, in order. */
  readonly killed: readonly (Name | 'trainer')[];
  readonly events: Readonly<Record<Name, readonly ChaosEvent[]>>;
}

export interface ChaosOptions {
  readonly root: string;
  readonly programs: Bundle;
  readonly shared: Omit<CoordinatorSetup, 'runDir' | 'port'>;
  readonly sites: Sites;
  readonly rounds: number;
  /** Beside what is shared. */
  readonly config?: Partial<FederationConfig>;
  /** A NATS server between them. @default none: the coordinator's own server */
  readonly natsPort?: number;
  readonly points?: readonly PointKill[];
  readonly onEvents?: readonly EventKill[];
}

/** What must not take longer: a run that hangs is the failure that this suite is there to find. */
const RUN_LIMIT_MS = 90_000;
/** Small enough that a model of 13 KB comes in several chunks. */
const CHUNK_BYTES = 4096;

export async function playWithKills(label: string, options: ChaosOptions): Promise<Outcome> {
  const { root, shared, sites, rounds } = options;
  const names: Name[] = ['coordinator', ...(Object.keys(sites) as SiteName[])];
  const port = await freePort();
  const runDir = join(root, label, 'run');
  const living = new Map<Name, Party<ChaosEvent>>();
  const events: Record<Name, ChaosEvent[]> = { coordinator: [], harbour: [], island: [], meadow: [] };
  const killed: (Name | 'trainer')[] = [];
  const pending = [...(options.onEvents ?? [])];
  const trainers = new Map<Name, number>();
  let invite: string | undefined;
  let over = false;

  function start(name: Name): Party<ChaosEvent> {
    // A point is for the first life of a process only.
    const first = events[name].length === 0 && !killed.includes(name);
    const point = first ? options.points?.find(({ who }) => who === name)?.at : undefined;
    const env: Record<string, string> = point === undefined ? {} : { TRIBUTARY_CRASH_AT: point };
    const one = startParty<ChaosEvent>(programOf(name, options), setupOf(name), env);
    living.set(name, one);
    one.onEvent((event) => {
      events[name].push(event);
      if (event.type === 'trainer') trainers.set(name, event.pid);
      if (event.type === 'invite' && invite === undefined) {
        invite = event.invite;
        for (const site of names.slice(1)) void keepAlive(site);
      }
      for (const plan of [...pending]) {
        if (plan.on !== name || !plan.when(event)) continue;
        pending.splice(pending.indexOf(plan), 1);
        for (const victim of plan.kill) strike(victim);
      }
    });
    return one;
  }

  function strike(victim: Name | 'trainer'): void {
    if (victim !== 'trainer') {
      living.get(victim)?.kill('SIGKILL');
      return;
    }
    const pid = trainers.get('harbour');
    if (pid === undefined) return;
    killed.push('trainer');
    process.kill(pid, 'SIGKILL');
  }

  const ends = new Map<Name, (error?: Error) => void>();
  const done = Promise.all(
    names.map(
      (name) =>
        new Promise<void>((resolve, reject) => {
          ends.set(name, (error) => (error === undefined ? resolve() : reject(error)));
        }),
    ),
  );

  /** Starts a process again for as long as it dies by SIGKILL. */
  async function keepAlive(name: Name): Promise<void> {
    for (;;) {
      const { code, signal, stderr } = await start(name).exited;
      if (over) return;
      if (signal === 'SIGKILL') {
        killed.push(name);
        continue;
      }
      const late =
        lastError(events[name]) === 'FED_WORKER_COORDINATOR_GONE' && hasFinished(events.coordinator);
      if (code === 0 || late) ends.get(name)?.();
      else ends.get(name)?.(new Error(`${name} ended with ${code ?? signal}\n${stderr}\n${tail(events)}`));
      return;
    }
  }

  function setupOf(name: Name): CoordinatorSetup | WorkerSetup {
    if (name === 'coordinator') {
      const cohort = { size: 'all' as const, quorum: names.length - 1 };
      const config = { ...shared.config, ...options.config, rounds, cohort };
      const { natsPort } = options;
      const nats = natsPort === undefined ? {} : { nats: `nats://127.0.0.1:${natsPort}/${label}` };
      return { ...shared, ...nats, config, runDir, port, preferredChunkBytes: CHUNK_BYTES };
    }
    return {
      invite: invite ?? '',
      name,
      dataDir: join(root, 'data', name),
      stateDir: join(root, label, name),
      trainer: sites[name] ?? 'fake',
      giveUpAfterMs: 20_000,
      preferredChunkBytes: CHUNK_BYTES,
    };
  }

  let limit: NodeJS.Timeout | undefined;
  const tooLong = new Promise<never>((_, reject) => {
    limit = setTimeout(() => {
      reject(new Error(`${label} has not ended after ${RUN_LIMIT_MS / 1000} s\n${tail(events)}`));
    }, RUN_LIMIT_MS);
  });
  try {
    void keepAlive('coordinator');
    await Promise.race([done, tooLong]);
  } finally {
    over = true;
    clearTimeout(limit);
    for (const one of living.values()) one.kill('SIGKILL');
  }
  const weights = sha256(await readFile(runPaths(runDir).checkpoint(rounds)));
  return { runDir, weights, killed, events };
}

function programOf(name: Name, { programs, sites }: ChaosOptions): string | URL {
  if (name === 'coordinator') return programs.program('coordinator-process');
  // A trainer process is started from the sources, so its agent is, too.
  return sites[name] === 'real' ? './worker-process.ts' : programs.program('worker-process');
}

function lastError(events: readonly ChaosEvent[]): string | undefined {
  const last = events.at(-1);
  return last?.type === 'error' ? last.code : undefined;
}

function hasFinished(events: readonly ChaosEvent[]): boolean {
  return events.some(({ type }) => type === 'summary');
}

function tail(events: Readonly<Record<string, readonly ChaosEvent[]>>): string {
  return Object.entries(events)
    .map(
      ([name, list]) =>
        `${name}:\n${list
          .slice(-12)
          .map((e) => `  ${JSON.stringify(e).slice(0, 240)}`)
          .join('\n')}`,
    )
    .join('\n');
}
