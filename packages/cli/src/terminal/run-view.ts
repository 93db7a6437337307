/**
 * A run as lines: what the coordinator's events look like to a person. Lines that stay go through `print`; what is
 * going on right now is `live()`, redrawn in place on a terminal and never shown in a pipe. Reads events, nothing else.
 */
import type { RunEvent } from '@tributary/shared-protocol';
import type { Colours } from '../context.ts';
import { bar } from './live.ts';
import { formatBytes, formatCount, formatMetric, formatMoment, formatSeconds } from './numbers.ts';
import { createTable, type Table } from './table.ts';
import { padEnd } from './text.ts';

export interface RunViewOptions {
  readonly colours: Colours;
  readonly rounds: number;
  /** The metric shown beside the loss. @default 'accuracy' */
  readonly metric?: string;
  /** Clients whose accuracy gets a column of its own; more sites than this share one column. @default 4 */
  readonly maxSiteColumns?: number;
  /** Site names known from the start, in the order of their columns. */
  readonly sites?: readonly string[];
  /** Leaves out invites, addresses and comings and goings (the demo says those its own way). @default false */
  readonly quiet?: boolean;
  readonly print: (text: string) => void;
}

export interface RunView {
  on(event: RunEvent): void;
  /** The lines for now, given the time: at most one headline and one line a site. */
  live(nowMs: number): string[];
}

type Metrics = Readonly<Record<string, number>>;
type Evaluated = Extract<RunEvent, { type: 'evaluated' }>;

interface SiteState {
  state: string;
  progress: number;
  /** Whether its update of this round is in: an idle site is then a done one. */
  done?: boolean;
}

export function createRunView(options: RunViewOptions): RunView {
  const { colours, print } = options;
  const metric = options.metric ?? 'accuracy';
  const maxSites = options.maxSiteColumns ?? 4;
  const sites = new Map<string, SiteState>();
  const evaluations = new Map<number, Evaluated>();
  let columns: string[] = [...(options.sites ?? [])];
  let table: Table | undefined;
  let cohort: readonly string[] = [];
  let round = 0;
  let roundStartedAt = 0;
  let phase = '';
  let said = '';
  let waiting = { since: 0, text: '' };

  /** The header, printed when the first row is: by then the sites' names are known. */
  const openTable = (evaluated: Evaluated | undefined): Table => {
    if (columns.length === 0) columns = (evaluated?.sites ?? []).map((site) => site.name).sort();
    if (columns.length > maxSites) columns = [];
    const opened = createTable([
      { title: 'round', width: String(options.rounds).length },
      { title: 'cohort', width: 6 },
      { title: 'examples', width: 8 },
      { title: 'loss', width: 6 },
      { title: metric, width: 8 },
      ...columns.map((title) => ({ title, width: 6 })),
      { title: 'central', width: 7 },
      { title: 'time  ', width: 8 },
    ]);
    print(`\n${colours.dim(opened.header)}`);
    return opened;
  };

  /** From the plan to the commit: the wait for the quorum is not the round's work. A resumed round has only its own count. */
  const secondsOf = (event: Extract<RunEvent, { type: 'committed' }>) =>
    roundStartedAt > 0 && round === event.round ? (event.at - roundStartedAt) / 1000 : event.seconds;

  const commit = (event: Extract<RunEvent, { type: 'committed' }>) => {
    const evaluated = evaluations.get(event.round);
    evaluations.delete(event.round);
    table ??= openTable(evaluated);
    const own: Metrics = evaluated?.metrics ?? {};
    const ofSite = (name: string) => evaluated?.sites.find((site) => site.name === name)?.metrics[metric];
    const { privacy } = event;
    const spent =
      privacy === undefined
        ? ''
        : colours.dim(`  epsilon ${privacy.epsilonSpent.toFixed(2)} of ${privacy.budget.epsilon}`);
    print(
      `${table.row([
        String(event.round),
        cohort.length === 0 ? String(event.updates) : `${event.updates}/${cohort.length}`,
        event.numExamples === undefined ? '–' : formatCount(event.numExamples),
        formatMetric(own['loss'] ?? evaluated?.central?.['loss']),
        formatMetric(own[metric]),
        ...columns.map((name) => formatMetric(ofSite(name))),
        formatMetric(evaluated?.central?.[metric]),
        `${formatSeconds(secondsOf(event))}${event.best ? colours.green(' ●') : '  '}`,
      ])}${spent}`,
    );
    for (const site of sites.values()) Object.assign(site, { state: 'idle', progress: 0, done: false });
  };

  const warn = (text: string) => print(`  ${colours.yellow('!')} ${text}`);

  const on = (event: RunEvent) => {
    switch (event.type) {
      case 'listening':
        if (options.quiet) return;
        print(
          `  listening   ${event.url}${event.fingerprint === undefined ? colours.yellow('  (plain, not encrypted)') : ''}`,
        );
        if (event.fingerprint !== undefined) print(`  certificate ${colours.dim(event.fingerprint)}`);
        if (event.logPublicKey !== undefined) print(`  log key     ${colours.dim(event.logPublicKey)}`);
        return;
      case 'invite': {
        if (options.quiet) return;
        const uses = event.uses === 1 ? 'once' : `${event.uses} times`;
        print(`\n  Paste this at a site (it works ${uses}, until ${formatMoment(event.expiresAt)}):\n`);
        print(`  ${colours.bold(`tributary join '${event.invite}' --data ./images`)}\n`);
        return;
      }
      case 'resumed':
        print(
          `  Resumed: ${event.round === 0 ? 'nothing was committed yet' : `round ${event.round} is the last one committed`}.`,
        );
        round = event.round;
        return;
      case 'joined':
        sites.set(event.name, { state: 'preparing', progress: 0 });
        if (!options.quiet)
          print(`  ${colours.green('→')} ${event.name} ${event.rejoined ? 'is back' : 'joined'}`);
        return;
      case 'ready':
        sites.set(event.name, { state: 'ready', progress: 0 });
        if (!options.quiet)
          print(
            `  ${colours.green('✓')} ${event.name} is ready: ` +
              (event.trainExamples === undefined ? '' : `${formatCount(event.trainExamples)} training and `) +
              `${formatCount(event.testExamples)} test images, engine ${event.engine}`,
          );
        return;
      case 'left':
        sites.delete(event.name);
        if (!options.quiet) print(`  ${colours.dim('←')} ${event.name} left: ${event.reason}`);
        return;
      case 'revoked':
        warn(`${event.name} is expelled: ${event.reason}`);
        return;
      case 'waiting': {
        const here = event.here.length === 0 ? 'nobody is ready yet' : `here: ${event.here.join(', ')}`;
        const text = `waiting (${here}): ${event.next}`;
        waiting = { since: phase === 'waiting' ? waiting.since : event.at, text: event.next };
        if (!options.quiet && text !== said) print(`  ${colours.dim('…')} ${text}`);
        said = text;
        // Within a round, the others are still at work: their bars say more than the wait.
        if (phase === '' || round !== event.round) phase = 'waiting';
        round = event.round;
        return;
      }
      case 'round-started':
        phase = 'training';
        round = event.round;
        roundStartedAt = event.at;
        cohort = event.cohort;
        for (const name of event.cohort) sites.set(name, { state: 'starting', progress: 0 });
        return;
      case 'progress':
        if (event.state !== 'idle' || sites.get(event.name)?.done !== true)
          sites.set(event.name, { state: event.state, progress: event.progress });
        return;
      case 'update-accepted':
        sites.set(event.name, {
          state: `done, ${formatBytes(event.bytes)} received`,
          progress: 1,
          done: true,
        });
        return;
      case 'update-refused':
        sites.set(event.name, { state: 'refused', progress: 0 });
        warn(
          `${event.name}: update of round ${event.round} refused: ${event.reason} ${colours.dim(event.code)}`,
        );
        return;
      case 'client-failed':
        sites.set(event.name, { state: 'failed', progress: 0 });
        warn(`${event.name}: round ${event.round} failed: ${event.reason} ${colours.dim(event.code)}`);
        return;
      case 'evaluated':
        evaluations.set(event.round, event);
        return;
      case 'committed':
        commit(event);
        return;
      case 'warning':
        warn(event.message);
        return;
      case 'finished':
        phase = 'finished';
        if (options.quiet && event.reason === 'rounds') return;
        print(`\n  ${event.reason === 'failed' ? colours.red('✗') : colours.green('✓')} ${event.message}`);
    }
  };

  const live = (nowMs: number): string[] => {
    if (phase === '' || phase === 'finished') return [];
    const ordered = [...sites].sort(([a], [b]) => rank(a) - rank(b));
    const width = Math.max(0, ...ordered.map(([name]) => name.length));
    const lines = ordered.map(([name, { state, progress }]) => {
      const resting = state === 'idle' || state === 'ready' || state === 'preparing';
      const drawn = resting ? colours.dim(bar(0, 24)) : colours.cyan(bar(progress, 24));
      return `  ${padEnd(name, width)}  ${drawn}  ${colours.dim(state)}`;
    });
    const elapsed = (since: number) => colours.dim(formatSeconds(Math.max(0, (nowMs - since) / 1000)));
    if (phase === 'waiting') return ['', `  ${waiting.text}  ${elapsed(waiting.since)}`, ...lines];
    return ['', `  round ${round} of ${options.rounds}  ${elapsed(roundStartedAt)}`, ...lines];
  };
  /** Sites with a column come first, in its order; then as they joined. */
  const rank = (name: string) => (columns.includes(name) ? columns.indexOf(name) : columns.length);

  return { on, live };
}
