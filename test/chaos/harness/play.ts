/**
 * Plays one run: starts its processes, lets its faults strike at their moments, and waits until all has come to an
 * end. It judges nothing; what happened is handed over.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createNatsUser } from '@tributary/shared-protocol/nats';
import type { CoordinatorSetup } from '../../e2e/coordinator-process.ts';
import type { WorkerSetup } from '../../e2e/worker-process.ts';
import { type Disk, openDisk } from './disk.ts';
import { type House, type Life, openHouse } from './household.ts';
import { orphansOf } from './orphans.ts';
import type { Fault, Moment, Party, RunPlan, SiteName } from './plan.ts';
import { type Line, openLine, PERFECT } from './proxy.ts';
import { createDraw } from './random.ts';
import { type Stage, steadyPort } from './stage.ts';
import { TRANSPORTS } from './transports.ts';

/** A fault as it went. */
export interface FaultRecord {
  readonly fault: Fault;
  /** Millis since the run began; undefined when its moment never came, or nothing was there to be hit. */
  readonly struckMs: number | undefined;
  readonly healedMs: number | undefined;
  /** The process that a signal went to, by name. */
  readonly hit: string | undefined;
}

export interface Outcome {
  readonly plan: RunPlan;
  /** Of the run: `run` and one folder a site. */
  readonly folder: string;
  /** One for each coordinator. */
  readonly runDirs: readonly [string, ...string[]];
  readonly stateDirs: Readonly<Partial<Record<SiteName, string>>>;
  readonly durationMs: number;
  readonly faults: readonly FaultRecord[];
  readonly events: House['events'];
  readonly lives: readonly Life[];
  /** Why it did not end by itself; undefined when it did. */
  readonly hung: string | undefined;
  /** Processes that were still there after everyone had ended, by command line. */
  readonly orphans: readonly string[];
  /** Unmounts; `keep` leaves the files. */
  dispose(options: { readonly keep: boolean }): void;
}

export interface PlayOptions {
  readonly signal?: AbortSignal;
  /** What must not take longer. @default 60_000 millis, and twice that where a coordinator stands by */
  readonly limitMs?: number;
}

/** A site that finds no coordinator any more gets this long before it is asked to leave. */
const AFTERLIFE_MS = 2000;
/** And this long to do so. */
const LEAVE_MS = 15_000;
const ORPHAN_PATIENCE_MS = 5000;

export async function playRun(plan: RunPlan, stage: Stage, options: PlayOptions = {}): Promise<Outcome> {
  const { federation, faults } = plan;
  const { sites } = federation;
  const folder = join(stage.root, `run-${plan.run}`);
  const transport = TRANSPORTS[plan.transport];
  const runDir = join(folder, 'run');
  const runDirs: [string, ...string[]] = transport.keepsRun ? [runDir, join(folder, 'standby')] : [runDir];
  const stateDirs = Object.fromEntries(sites.map((site) => [site, join(folder, site)])) as Record<
    SiteName,
    string
  >;
  await mkdir(folder, { recursive: true });
  const mark = `${process.pid}-${plan.seed}-${plan.run}`;
  const random = createDraw(plan.seed, `line ${plan.run}`);
  const shared = await stage.federation(federation);
  const port = await steadyPort();
  // The port is the broker's where there is one: then the coordinator has a line to it as well.
  const lines = new Map<Party, Line>();
  for (const one of transport.broker ? (['coordinator', ...sites] as const) : sites)
    lines.set(one, await openLine(port, random));
  const disks = new Map<Party, Disk>();
  for (const fault of faults) {
    if (fault.kind !== 'full disk' || disks.has(fault.victim)) continue;
    const { victim } = fault;
    disks.set(victim, openDisk(victim === 'coordinator' ? runDir : stateDirs[victim], stage.diskKind));
  }

  const house = openHouse(mark);
  const records = faults.map((fault) => ({
    fault,
    struckMs: undefined as number | undefined,
    healedMs: undefined as number | undefined,
    hit: undefined as string | undefined,
  }));
  const timers = new Set<NodeJS.Timeout>();
  const healing = new Set<() => void>();
  let leader = 'coordinator';
  let trainerPid: number | undefined;
  let coordinatorEnded = false;
  let brokerMayEnd = false;
  let over = false;

  const after = (ms: number, action: () => void) => {
    const timer = setTimeout(() => {
      timers.delete(timer);
      if (!over) action();
    }, ms);
    timers.add(timer);
  };

  function strike(record: (typeof records)[number]): void {
    const { fault } = record;
    const undo = inflict(record);
    if (undo === undefined) return;
    record.struckMs = house.now();
    const heal = () => {
      if (!healing.delete(heal)) return;
      record.healedMs = house.now();
      undo();
    };
    healing.add(heal);
    after('forMs' in fault ? fault.forMs : 0, heal);
  }

  /** Does the deed and returns what takes it back; undefined when there was nothing to be hit. */
  function inflict(record: (typeof records)[number]): (() => void) | undefined {
    const { fault } = record;
    switch (fault.kind) {
      case 'kill':
        record.hit = processOf(fault.victim);
        if (!signalTo(record.hit, 'SIGKILL')) return undefined;
        house.restartAfter(record.hit, fault.restartMs);
        return () => {};
      case 'freeze': {
        const hit = processOf(fault.victim);
        record.hit = hit;
        if (!signalTo(hit, 'SIGSTOP')) return undefined;
        return () => void signalTo(hit, 'SIGCONT');
      }
      case 'full disk': {
        const disk = disks.get(fault.victim);
        if (disk === undefined || stage.diskKind === 'none') return undefined;
        disk.fill(fault.slackBytes);
        return () => disk.free();
      }
      case 'cut':
        lines.get(fault.victim)?.cut();
        return () => {};
      case 'partition':
        return worsen(fault.victim, { blocked: true }, { blocked: false });
      case 'delay': {
        const { delayMs, jitterMs } = fault;
        return worsen(fault.victim, { delayMs, jitterMs }, { delayMs: 0, jitterMs: 0 });
      }
      case 'slow line': {
        const { bytesPerSecond } = fault;
        return worsen(fault.victim, { bytesPerSecond }, { bytesPerSecond: PERFECT.bytesPerSecond });
      }
      case 'loss':
        return worsen(fault.victim, { lossRate: fault.lossRate }, { lossRate: 0 });
    }
  }

  function worsen(
    victim: Party,
    worse: Parameters<Line['shape']>[0],
    better: Parameters<Line['shape']>[0],
  ): () => void {
    const line = lines.get(victim);
    line?.shape(worse);
    return () => line?.shape(better);
  }

  function processOf(victim: Fault['victim']): string {
    if (victim === 'coordinator') return leader;
    if (victim === 'standby') return leader === 'standby' ? 'coordinator' : 'standby';
    return victim;
  }

  function signalTo(victim: string, signal: NodeJS.Signals): boolean {
    if (victim !== 'trainer') return house.signal(victim, signal);
    if (trainerPid === undefined) return false;
    try {
      return process.kill(trainerPid, signal);
    } catch {
      // It has ended since it was announced.
      return false;
    }
  }

  const counts = new Map<string, number>();
  const waitsFor = new Map<string, (typeof records)[number][]>();
  for (const record of records) {
    const key = keyOf(record.fault.when);
    if (key !== undefined) waitsFor.set(key, [...(waitsFor.get(key) ?? []), record]);
  }
  /** Processes that have said something in this life: a signal reaches their handlers. */
  const speaking = new Set<string>();
  house.onEvent((name, event) => {
    speaking.add(name);
    if (event.type === 'trainer') trainerPid = event['pid'] as number;
    if (event.type === 'leading') leader = name;
    // Faults wait for what a coordinator says, whichever it is.
    const said = `${name === 'standby' ? 'coordinator' : name}|${event.type}`;
    const nth = (counts.get(said) ?? 0) + 1;
    counts.set(said, nth);
    for (const record of waitsFor.get(`${said}|${nth}`) ?? []) {
      const { when } = record.fault;
      const plusMs = 'plusMs' in when ? when.plusMs : 0;
      if (plusMs === 0) strike(record);
      else after(plusMs, () => strike(record));
    }
  });
  house.onStart((name, pid) => {
    speaking.delete(name);
    disks.get(name as Party)?.adopt(pid);
  });
  for (const record of records) {
    if ('atMs' in record.fault.when) after(record.fault.when.atMs, () => strike(record));
  }

  const invited = new Promise<string>((resolve) => {
    house.onEvent((_, event) => {
      if (event.type === 'invite') resolve(event['invite'] as string);
    });
  });
  const watched = federation.watched !== undefined;
  const setup: Omit<CoordinatorSetup, 'runDir'> = {
    ...shared,
    port,
    preferredChunkBytes: federation.chunkBytes,
    watched,
    ...(transport.keepsRun ? { store: { nkeySeed: createNatsUser().seed } } : {}),
  };
  const broker =
    transport.broker && startBroker(transport.broker.command({ port, folder: join(folder, 'broker') }));
  await broker?.ready;
  /** Each has a folder of its own; the second one's line is never worse than perfect. */
  const coordinators = (['coordinator', 'standby'] as const).slice(0, runDirs.length).map((name, i) => {
    const nats = transport.broker?.address(lines.get(name as Party)?.port ?? port);
    const own: CoordinatorSetup = { ...setup, runDir: runDirs[i]!, ...(nats === undefined ? {} : { nats }) };
    return house.keep(name, { program: stage.program('coordinator-process'), setup: own }, () => false);
  });
  const coordinator = Promise.all(coordinators).then(() => {
    coordinatorEnded = true;
  });
  const atSites = Promise.all(
    sites.map(async (site, i) => {
      const invite = transport.throughLine(await invited, lines.get(site)!.port);
      const isReal = i === 0 && federation.realTrainer;
      const workerSetup: WorkerSetup = {
        invite,
        name: site,
        dataDir: stage.dataDir(site),
        stateDir: stateDirs[site],
        trainer: isReal ? 'real' : 'fake',
        trainMs: federation.trainMs,
        giveUpAfterMs: 600_000,
        preferredChunkBytes: federation.chunkBytes,
        watched,
      };
      // A trainer process is started from the sources, so its agent is, too.
      const program = isReal ? './worker-process.ts' : stage.program('worker-process');
      const command = { program, setup: workerSetup };
      await house.keep(site, command, ({ signal }) => coordinatorEnded && signal === 'SIGTERM');
    }),
  );
  // Looked at below, once the coordinator has ended.
  atSites.catch(() => undefined);

  function startBroker(command: ReturnType<NonNullable<typeof transport.broker>['command']>) {
    const ready = new Promise<void>((resolve) => {
      house.onEvent((name) => {
        if (name === 'broker') resolve();
      });
    });
    const ended = house.keep('broker', command, () => brokerMayEnd);
    return { ready: Promise.race([ready, ended]), ended };
  }

  // A coordinator that stands by goes on only once the leader's time is up.
  const { limitMs = transport.keepsRun ? 120_000 : 60_000, signal } = options;
  let hung: string | undefined;
  try {
    hung = await within(limitMs, signal, coordinator);
    // Whoever is left must get by without the coordinator, on sound machines.
    for (const timer of timers) clearTimeout(timer);
    for (const heal of [...healing]) heal();
    if (hung === undefined) {
      const asking = setInterval(() => {
        for (const site of sites) if (speaking.has(site)) house.signal(site, 'SIGTERM');
      }, AFTERLIFE_MS);
      hung = await within(LEAVE_MS, signal, atSites);
      clearInterval(asking);
      brokerMayEnd = true;
      // To SIGTERM it answers with exit code 1.
      house.signal('broker', 'SIGINT');
      hung ??= await within(LEAVE_MS, signal, Promise.resolve(broker?.ended));
    }
  } catch (error) {
    hung = error instanceof Error ? error.message : String(error);
  } finally {
    over = true;
    for (const timer of timers) clearTimeout(timer);
    for (const heal of [...healing]) heal();
  }
  const durationMs = house.now();
  const orphans = hung === undefined ? await orphansOf(mark, ORPHAN_PATIENCE_MS) : [];
  await house.close();
  if (hung !== undefined || orphans.length > 0) await orphansOf(mark, 0, { end: true });
  for (const line of lines.values()) await line.close();
  return {
    plan,
    folder,
    runDirs,
    stateDirs,
    durationMs,
    faults: records,
    events: house.events,
    lives: house.lives,
    hung,
    orphans,
    dispose({ keep }) {
      for (const disk of disks.values()) disk.close({ keep });
    },
  };
}

function keyOf(when: Moment): string | undefined {
  return 'on' in when ? `${when.on}|${when.event}|${when.nth}` : undefined;
}

/** Undefined once `work` is done, else why it was not waited for any longer. */
function within(
  ms: number,
  signal: AbortSignal | undefined,
  work: Promise<unknown>,
): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const settle = (outcome: string | undefined) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      resolve(outcome);
    };
    const onAbort = () => settle('it was interrupted');
    const timer = setTimeout(() => settle(`it has not ended after ${Math.round(ms / 1000)} s`), ms);
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted) onAbort();
    work.then(() => settle(undefined), reject);
  });
}
