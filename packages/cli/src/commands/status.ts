/** `tributary status`: where a run stands, from its coordinator when that is running, else from the run directory. */
import type { RunStatus } from '@tributary/shared-protocol';
import { errorCode } from '@tributary/shared-protocol';
import { Command } from 'commander';
import { type CliContext, print, printJson } from '../context.ts';
import { CliError } from '../errors.ts';
import type { Run } from '../runs.ts';
import { bar } from '../terminal/live.ts';
import { formatCount, formatMetric } from '../terminal/numbers.ts';
import { createTable } from '../terminal/table.ts';

export function statusCommand(context: CliContext): Command {
  return new Command('status')
    .description('where a run stands')
    .argument('[run]', 'the run directory (default: the newest in runs/)')
    .option('--running', 'fail when no coordinator answers: for a health check')
    .action(async (argument: string | undefined, _options: unknown, command: Command) => {
      const { openRun } = await import('../runs.ts');
      const run = openRun(context.cwd, argument);
      const { status, running } = await statusOf(run);
      if (!running && command.opts()['running'] === true) {
        throw new CliError('FED_CLI_NOT_RUNNING', `No coordinator answers for ${run.dir}.`, {
          todo: 'The same `tributary coordinator` command goes on with it.',
        });
      }
      if (command.optsWithGlobals()['json']) {
        return printJson(context, {
          type: 'status',
          running,
          runDir: run.dir,
          ...status,
        });
      }
      printStatus(context, run, status, running);
    });
}

/** Where a run stands: by its coordinator when that is running, else by its log. */
export async function statusOf(run: Run): Promise<{ status: RunStatus; running: boolean }> {
  const live = await askStatus(run);
  return live === undefined
    ? { status: await statusFromDisk(run), running: false }
    : { status: live, running: true };
}

async function askStatus(run: Run): Promise<RunStatus | undefined> {
  const { askCoordinator } = await import('../admin.ts');
  try {
    return (await askCoordinator(run, { type: 'get-status' }, 'status')).status as RunStatus;
  } catch (error) {
    if (errorCode(error) === 'FED_CLI_NOT_RUNNING') return undefined;
    throw error;
  }
}

/** What the log says of a run that no coordinator holds open. */
async function statusFromDisk({ federation, state }: Run): Promise<RunStatus> {
  const { memberViews, privacyStatus } = await import('@tributary/coordinator');
  const last = state.commits.at(-1);
  return {
    runId: state.runId,
    name: federation.name,
    state: state.finished === undefined ? 'waiting' : 'finished',
    round: last?.round ?? 0,
    rounds: federation.rounds,
    clients: [...state.members.values()]
      .filter(({ revoked }) => !revoked)
      .map(({ clientId, name }) => ({
        clientId,
        name,
        connected: false,
        state: 'away',
        progress: 0,
        testExamples: 0,
        lastSeenAt: 0,
      })),
    members: memberViews(state),
    waitingFor: undefined,
    metrics: last?.centralMetrics ?? last?.siteMetrics ?? {},
    bestRound: state.commits.findLast((commit) => commit.best)?.round ?? 0,
    ...privacyStatus({ federation, state }),
  };
}

function printStatus(context: CliContext, run: Run, status: RunStatus, running: boolean): void {
  const { bold, dim, green, yellow } = context.colours;
  const how = running
    ? green(status.state)
    : status.state === 'finished'
      ? green('finished')
      : yellow('not running');
  print(context, `\n  ${bold(status.name)}  ${how}  ${dim(status.runId)}`);
  print(context, `  run folder  ${run.dir}`);
  print(
    context,
    `  round       ${bar(status.round / status.rounds, 24)}  ${status.round} of ${status.rounds}`,
  );
  if (status.waitingFor !== undefined) print(context, `  next        ${status.waitingFor}`);
  const metrics = Object.entries(status.metrics).map(([name, value]) => `${name} ${formatMetric(value)}`);
  if (metrics.length > 0) print(context, `  measured    ${metrics.join(', ')}`);
  if (status.privacy !== undefined) {
    const { epsilon, delta } = status.privacy.budget;
    print(context, `  privacy     each site spends an epsilon of ${epsilon} at most, at delta ${delta}`);
  }
  if (status.bestRound > 0) print(context, `  best        round ${status.bestRound}`);
  if (!running && status.state !== 'finished') {
    const ended = run.state.finished;
    if (ended !== undefined) print(context, `  ended       ${ended.message}`);
    print(context, `  ${dim('The same `tributary coordinator` command goes on with it.')}`);
  }
  if (status.clients.length > 0) {
    const table = createTable([
      {
        title: 'site',
        width: Math.max(...status.clients.map((client) => client.name.length)),
        align: 'left',
      },
      { title: 'state', width: 12, align: 'left' },
      { title: 'train', width: 8 },
      { title: 'test', width: 8 },
      ...(status.privacy === undefined ? [] : [{ title: 'epsilon', width: 8 }]),
    ]);
    print(context, `\n${dim(table.header)}`);
    for (const client of status.clients) {
      const share =
        client.progress > 0 && client.progress < 1 ? ` ${Math.round(client.progress * 100)} %` : '';
      const count = (value: number | undefined) =>
        running && value !== undefined ? formatCount(value) : '–';
      print(
        context,
        table.row([
          client.name,
          client.connected ? `${client.state}${share}` : 'away',
          count(client.trainExamples),
          count(client.testExamples),
          ...(status.privacy === undefined
            ? []
            : [(status.privacy.epsilonSpent[client.name] ?? 0).toFixed(2)]),
        ]),
      );
    }
  }
  print(context);
}
