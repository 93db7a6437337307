/** `tributary members`: who has joined a run, with which key, and who of them is in it now. */
import { keyFingerprint, type RunStatus } from '@tributary/shared-protocol';
import { Command } from 'commander';
import { type CliContext, print, printJson } from '../context.ts';
import { formatMoment } from '../terminal/numbers.ts';
import { createTable } from '../terminal/table.ts';

export function membersCommand(context: CliContext): Command {
  return new Command('members')
    .description('who has joined a run, with which key')
    .argument('[run]', 'the run directory (default: the newest in runs/)')
    .action(async (argument: string | undefined, _options: unknown, command: Command) => {
      const { openRun } = await import('../runs.ts');
      const { statusOf } = await import('./status.ts');
      const run = openRun(context.cwd, argument);
      const { status, running } = await statusOf(run);
      const members = status.members.map((member) => describe(member, status, running));
      if (command.optsWithGlobals()['json'])
        return printJson(context, { type: 'members', running, runDir: run.dir, members });
      const { bold, dim } = context.colours;
      print(context, `\n  ${bold(status.name)}  ${dim(status.runId)}`);
      if (members.length === 0) return print(context, '  Nobody has joined yet.\n');
      const table = createTable([
        { title: 'site', width: Math.max(...members.map(({ name }) => name.length)), align: 'left' },
        { title: 'key', width: 19, align: 'left' },
        { title: 'joined', width: 16, align: 'left' },
        { title: 'state', align: 'left' },
      ]);
      print(context, `\n${dim(table.header)}`);
      for (const { name, fingerprint, joinedAt, state, reason } of members) {
        const joined = joinedAt === undefined ? '–' : formatMoment(joinedAt);
        const why = reason === undefined ? '' : `: ${reason}`;
        print(context, table.row([name, fingerprint ?? '–', joined, `${state}${why}`]));
      }
      print(context);
    });
}

function describe(
  { clientId, name, publicKey, joinedAt, revoked }: RunStatus['members'][number],
  { clients }: RunStatus,
  running: boolean,
) {
  const client = clients.find((one) => one.clientId === clientId);
  const here = running && client?.connected === true ? client.state : 'away';
  return {
    clientId,
    name,
    publicKey,
    fingerprint: publicKey === undefined ? undefined : keyFingerprint(publicKey),
    joinedAt,
    state: revoked ? 'revoked' : here,
    reason: revoked?.reason,
    revokedAt: revoked?.at,
  };
}
