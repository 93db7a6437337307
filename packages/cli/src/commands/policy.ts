/** `tributary policy`: what this site's policy would refuse of a federation, without joining it; and a policy to start from. */
import { basename, resolve } from 'node:path';
import type { FederationFacts, Verdict } from '@tributary/worker';
import { Command } from 'commander';
import { ENGINE_CHOICES, existingFile, existingFolder, oneOf } from '../arguments.ts';
import { type CliContext, print, printJson } from '../context.ts';
import { CliError } from '../errors.ts';
import { exitCode } from '../exit-codes.ts';
import { writeNewFile } from '../new-file.ts';

interface CheckFlags {
  readonly policy?: string;
  readonly data?: string;
  readonly federation?: string;
  readonly invite?: string;
  readonly stateDir?: string;
  readonly name?: string;
  readonly engine: (typeof ENGINE_CHOICES)[number];
  readonly json?: boolean;
}

/** What is known of the federation, and from where, for people. */
interface Source {
  readonly from: string;
  readonly facts: Partial<FederationFacts>;
}

export function policyCommand(context: CliContext, setExit: (code: number) => void): Command {
  const check = new Command('check')
    .description('what this site’s policy would refuse of a federation; nobody is dialled')
    .option('--policy <file>', 'the policy (default: site-policy.yaml in the data folder, or here)')
    .option('--data <dir>', 'the data folder that the policy lies in')
    .option('--federation <file>', 'hold it against the lead’s configuration file')
    .option('--invite <text>', 'hold it against the coordinator that an invite names')
    .option('--state-dir <dir>', 'hold it against the run that was joined from this state folder')
    .option('--name <name>', 'this site’s name in the run, where several were joined from here')
    .option('--engine <name>', 'the engine that join would be given', oneOf(ENGINE_CHOICES), 'auto')
    .action(async (_options: unknown, command: Command) => {
      const flags = command.optsWithGlobals<CheckFlags>();
      const refused = await checkPolicy(context, flags);
      if (refused) setExit(exitCode('policy'));
    });
  const init = new Command('init')
    .description('write a commented policy to start from')
    .argument('[file]', 'where to write it', 'site-policy.yaml')
    .action(async (file: string, _options: unknown, command: Command) => {
      const { POLICY_TEMPLATE } = await import('@tributary/worker');
      const path = resolve(context.cwd, file);
      writeNewFile(path, POLICY_TEMPLATE, 'tributary policy init other.yaml');
      if (command.optsWithGlobals()['json']) return printJson(context, { type: 'written', file: path });
      print(context, `${context.colours.green('✓')} Wrote ${path}`);
      print(context, '  Take the # from the keys that you want, and put it beside the images.');
    });
  return new Command('policy')
    .description('this site’s policy: what it would refuse, or one to start from')
    .addCommand(check)
    .addCommand(init);
}

/** Prints each rule's verdict; resolves with whether one of them refuses. */
async function checkPolicy(context: CliContext, flags: CheckFlags): Promise<boolean> {
  const { canWatchMemory, judge, loadPolicy } = await import('@tributary/worker');
  const dataDir = flags.data === undefined ? context.cwd : existingFolder(context.cwd, flags.data, '--data');
  const file = flags.policy === undefined ? undefined : resolve(context.cwd, flags.policy);
  const policy = await loadPolicy({ file, dataDir });
  if (policy.file === undefined) {
    throw new CliError('FED_CLI_FILE_MISSING', `There is no site-policy.yaml in ${dataDir}.`, {
      todo: 'Name it with --policy, or its folder with --data; `tributary policy init` writes one.',
    });
  }
  const { from, facts } = await gather(context, flags);
  const verdicts = judge(policy.rules, {
    ...facts,
    engine: flags.engine,
    canWatchMemory: await canWatchMemory(),
    at: Date.now(),
  });
  const refused = verdicts.filter(({ state }) => state === 'refused');
  const { sha256 } = await import('@tributary/shared-protocol');
  const model = facts.federation === undefined ? undefined : sha256(facts.federation.topology);
  if (flags.json) {
    printJson(context, {
      type: 'policy',
      file: policy.file,
      against: from,
      model,
      refused: refused.length > 0,
      verdicts,
    });
    return refused.length > 0;
  }
  const { bold, green, red } = context.colours;
  print(context, `\n  ${bold(policy.file)}\n  held against ${from}`);
  print(context, model === undefined ? '' : `  model ${model}\n`);
  for (const verdict of verdicts) print(context, verdictLine(context, verdict));
  if (verdicts.length === 0) print(context, '  It sets no rule.');
  const counted = `${refused.length} of ${verdicts.length} rules`;
  print(
    context,
    refused.length > 0 ? `\n  ${red('✗')} refused by ${counted}\n` : `\n  ${green('✓')} nothing is refused\n`,
  );
  return refused.length > 0;
}

function verdictLine(context: CliContext, { key, state, detail, code }: Verdict): string {
  const { dim, green, red, yellow } = context.colours;
  const mark = { ok: green('✓'), refused: red('✗'), later: yellow('…'), unknown: dim('?') }[state];
  return `  ${mark} ${key.padEnd(14)} ${detail}${code === undefined ? '' : ` ${dim(code)}`}`;
}

async function gather(context: CliContext, flags: CheckFlags): Promise<Source> {
  if (flags.federation !== undefined) return await fromConfiguration(context, flags.federation);
  const { findStateDir, readSiteFacts, siteStateDir, stateHome } = await import('@tributary/worker');
  const home = stateHome(context.env as NodeJS.ProcessEnv);
  if (flags.invite !== undefined) {
    const { decodeInvite } = await import('@tributary/shared-protocol');
    const { hostname } = await import('node:os');
    const { url, fingerprint, runId } = decodeInvite(flags.invite);
    const kept = await readSiteFacts(siteStateDir(home, runId, flags.name ?? hostname()));
    const known = kept?.federation === undefined ? '; its model is told once this site joins' : '';
    return {
      from: `the invite to run ${runId} at ${url}${known}`,
      facts: { ...factsOf(kept), coordinator: { url, fingerprint } },
    };
  }
  const path =
    flags.stateDir === undefined
      ? await findStateDir(home, flags.name)
      : existingFolder(context.cwd, flags.stateDir, '--state-dir');
  const kept = await readSiteFacts(path);
  if (kept === undefined) {
    throw new CliError('FED_CLI_FILE_MISSING', `No run was joined from ${path}.`, {
      where: '--state-dir',
      todo: 'Give an invite (--invite) or the lead’s configuration (--federation).',
    });
  }
  const { url, fingerprint } = kept;
  const run = kept.federation === undefined ? 'a run' : `run ${kept.federation.runId}`;
  return {
    from: `${run} at ${url}, joined as ${kept.name}`,
    facts: { ...factsOf(kept), coordinator: { url, fingerprint } },
  };
}

function factsOf(
  kept:
    | { readonly federation: FederationFacts['federation'] | undefined; readonly minor: number | undefined }
    | undefined,
): Partial<FederationFacts> {
  return {
    ...(kept?.federation === undefined ? {} : { federation: kept.federation }),
    ...(kept?.minor === undefined ? {} : { tellsCohort: kept.minor >= 1 }),
  };
}

/** The lead's configuration: its model is built as the coordinator would, and nothing is started. */
async function fromConfiguration(context: CliContext, argument: string): Promise<Source> {
  const { prepareFederation } = await import('../federation.ts');
  const file = existingFile(context.cwd, argument, '--federation');
  const { federation } = await prepareFederation(file, context.cwd);
  const { topology, rounds, frozenWeights, tensors, cohort, server } = federation;
  const values = tensors.reduce((sum, { shape }) => sum + shape.reduce((n, side) => n * side, 1), 0);
  // A round of fewer sites than the quorum can't open; one of more may close with the quorum.
  const asked = typeof cohort.size === 'number' && cohort.size >= 1 ? cohort.size : cohort.quorum;
  const least =
    typeof cohort.size === 'number' && cohort.size < 1 ? Math.ceil(cohort.size * cohort.quorum) : asked;
  return {
    from: `the configuration ${basename(file)}`,
    facts: {
      federation: { topology, rounds, frozenWeights: [...frozenWeights], modelBytes: 4 * values },
      tellsCohort: true,
      minUpdates: Math.min(cohort.quorum, least),
      ...(server.publicUrl === undefined
        ? {}
        : { coordinator: { url: server.publicUrl, fingerprint: undefined } }),
    },
  };
}
