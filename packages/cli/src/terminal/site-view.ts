/** A site's own work as lines: what `join` shows. Reads the worker's events, nothing else. */
import type { PreflightStep, WorkerEvent } from '@tributary/worker';
import type { Colours } from '../context.ts';
import { bar } from './live.ts';
import { formatBytes, formatCount, formatMetric, formatMoment, formatSeconds } from './numbers.ts';

export interface SiteViewOptions {
  readonly colours: Colours;
  readonly print: (text: string) => void;
}

export interface SiteView {
  on(event: WorkerEvent): void;
  live(nowMs: number): string[];
}

const LABEL_WIDTH = 9;

/** One check of the preflight as a line, and its advice as a second one. */
export function preflightLines(step: PreflightStep, colours: Colours): string[] {
  const mark = { ok: colours.green('✓'), warn: colours.yellow('!'), fail: colours.red('✗') }[step.state];
  const lines = [`  ${mark} ${step.name.padEnd(LABEL_WIDTH)} ${step.detail}`];
  if (step.advice !== undefined && step.state !== 'ok') {
    lines.push(`    ${' '.repeat(LABEL_WIDTH)} ${colours.dim(step.advice)}`);
  }
  return lines;
}

export function createSiteView(options: SiteViewOptions): SiteView {
  const { colours, print } = options;
  let rounds = 0;
  let now: { text: string; share: number | undefined; since: number } | undefined;
  const doing = (at: number, text: string, share?: number) => {
    now = { text, share, since: now?.text === text ? now.since : at };
  };

  const on = (event: WorkerEvent) => {
    switch (event.type) {
      case 'preflight':
        for (const line of preflightLines(event.step, colours)) print(line);
        return;
      case 'preparing':
        doing(event.at, event.message);
        return;
      case 'joined':
        rounds = event.rounds;
        print(
          `\n  ${colours.green('→')} ${event.rejoined ? 'back in' : 'joined'} ${colours.bold(event.federation)} as ${event.name}`,
        );
        return;
      case 'ready':
        now = undefined;
        print(
          `  ${colours.green('✓')} ready: ${formatCount(event.trainExamples)} training and ${formatCount(event.testExamples)} test images` +
            `${event.unreadable > 0 ? `, ${formatCount(event.unreadable)} unreadable` : ''}; ${event.engineReason}`,
        );
        return;
      case 'waiting':
        doing(event.at, `waiting: ${event.next}`);
        return;
      case 'fetching':
        doing(
          event.at,
          `round ${event.round}: fetching the model, ${formatBytes(event.totalBytes)}`,
          event.bytes / Math.max(1, event.totalBytes),
        );
        return;
      case 'training':
        doing(event.at, `round ${event.round}${rounds > 0 ? ` of ${rounds}` : ''}: training`, event.progress);
        return;
      case 'evaluating':
        doing(event.at, `round ${event.round}: evaluating`, event.progress);
        return;
      case 'sending':
        doing(
          event.at,
          `round ${event.round}: sending the update, ${formatBytes(event.totalBytes)}`,
          event.bytes / Math.max(1, event.totalBytes),
        );
        return;
      case 'masked':
        doing(event.at, `round ${event.round}: masked with ${event.sites - 1} other sites`);
        if (event.clippedFraction > 0)
          print(
            `  ${colours.yellow('!')} round ${event.round}: ${(100 * event.clippedFraction).toFixed(2)} % of the update’s values were clipped to be masked`,
          );
        return;
      case 'accepted':
        print(`  ${colours.green('✓')} round ${event.round}: update accepted`);
        return;
      case 'evaluated':
        print(
          `  ${colours.dim('·')} round ${event.round}: ${metricsText(event.metrics)} on ${formatCount(event.numExamples)} test images here`,
        );
        return;
      case 'refused':
        print(
          `  ${colours.yellow('!')} round ${event.round}: update refused: ${event.reason} ${colours.dim(event.code)}`,
        );
        return;
      case 'abandoned':
        print(
          `  ${colours.yellow('!')} round ${event.round}: gave up its ${event.task} work: ${event.reason}`,
        );
        return;
      case 'trainer-crashed':
        print(
          `  ${colours.yellow('!')} the trainer stopped (attempt ${event.attempt} of ${event.attempts}): ${event.reason}`,
        );
        return;
      case 'failed':
        print(
          `  ${colours.red('✗')} round ${event.round} failed here: ${event.reason} ${colours.dim(event.code)}`,
        );
        return;
      case 'declined':
        print(
          `  ${colours.yellow('!')} round ${event.round} (${event.task}) declined: ${event.reason} ${colours.dim(event.code)}`,
        );
        return;
      case 'withheld':
        print(
          `  ${colours.yellow('!')} round ${event.round}: update not sent${event.kept ? ' for now' : ''}: ${event.reason} ${colours.dim(event.code)}`,
        );
        return;
      case 'resting':
        print(`  ${colours.yellow('…')} resting until ${formatMoment(event.until)}: ${event.reason}`);
        doing(event.at, `resting until ${formatMoment(event.until)}`);
        return;
      case 'reconnecting':
        print(
          `  ${colours.yellow('…')} ${event.reason}; dialling again in ${formatSeconds(event.delayMs / 1000)} (attempt ${event.attempt})`,
        );
        return;
      case 'log':
        print(`  ${colours.dim(event.message)}`);
        return;
      case 'finished':
        now = undefined;
        print(
          `\n  ${colours.green('✓')} ${event.ended === 'left' ? 'left' : 'the coordinator ended it'}: ${event.reason}`,
        );
        return;
      case 'planned':
      case 'spooled':
      case 'offered':
        return;
    }
  };

  const live = (nowMs: number): string[] => {
    if (now === undefined) return [];
    const seconds = formatSeconds(Math.max(0, (nowMs - now.since) / 1000));
    const share = now.share === undefined ? '' : `${colours.cyan(bar(now.share, 24))}  `;
    return ['', `  ${share}${now.text}  ${colours.dim(seconds)}`];
  };
  return { on, live };
}

function metricsText(metrics: Readonly<Record<string, number>>): string {
  return Object.entries(metrics)
    .map(([name, value]) => `${name} ${formatMetric(value)}`)
    .join(', ');
}
