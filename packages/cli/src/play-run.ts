/** One run from its first listening to its end, on the screen: what `coordinator` does once its configuration stands. */
import { existsSync, statSync } from 'node:fs';
import { type Coordinator, createCoordinator, type RunSummary } from '@tributary/coordinator';
import type { RunEvent } from '@tributary/shared-protocol';
import { type CliContext, printJson } from './context.ts';
import { CliError } from './errors.ts';
import type { PreparedFederation } from './federation.ts';
import { certificateHosts, renewTlsIdentity } from './identity.ts';
import { isRun } from './runs.ts';
import { createRunView } from './terminal/run-view.ts';
import { openSession } from './terminal/session.ts';
import { listeningTransport } from './transports.ts';

export interface PlayOptions {
  /** Events as JSON lines instead of text. */
  readonly json: boolean;
}

/**
 * Plays the run to its end and returns its summary. While sites are missing there is always one unused invite on the
 * screen: a fresh one follows each that was used.
 *
 * Throws FED_CLI_RUN_FAILED when the run ended as failed, FED_CLI_INTERRUPTED when it was paused, and what
 * createCoordinator throws.
 */
export async function playRun(
  context: CliContext,
  prepared: PreparedFederation,
  options: PlayOptions,
): Promise<RunSummary> {
  const { federation, artifact, runDir, testDir } = prepared;
  const { colours } = context;
  if (testDir !== undefined && !(existsSync(testDir) && statSync(testDir).isDirectory())) {
    throw new CliError('FED_CLI_FILE_MISSING', `There is no folder ${testDir} with test images.`, {
      where: 'evaluation.testDir',
      todo: 'It is relative to the configuration and holds <class>/*; leave the key out to measure at the sites only.',
    });
  }
  const resuming = isRun(runDir);
  const transport = await listeningTransport(federation.server, runDir);

  const view = createRunView({ colours, rounds: federation.rounds, print: (text) => session.print(text) });
  const session = openSession(context, (now) => (options.json ? [] : view.live(now)));
  let coordinator: Coordinator | undefined;
  const missing = () => Math.max(0, federation.cohort.quorum - (coordinator?.status().clients.length ?? 0));
  const show = (event: RunEvent) => {
    if (options.json) printJson(context, event);
    else view.on(event);
    // A joined site has used an invite up; the next site needs another.
    if (event.type === 'joined' && !event.rejoined && federation.invites.uses === 1 && missing() > 0) {
      setImmediate(() => coordinator?.invite());
    }
  };

  const evaluator =
    testDir === undefined
      ? undefined
      : await (await import('./evaluation.ts')).createEvaluator({ federation, dataDir: testDir });
  try {
    if (!options.json) {
      session.print(
        `\n  ${colours.bold(`Tributary · ${federation.name}`)}  ${colours.dim(`${federation.model}, ${federation.rounds} rounds`)}`,
      );
      session.print(`  run folder  ${runDir}${resuming ? colours.dim('  (going on with it)') : ''}`);
    }
    coordinator = await createCoordinator({
      federation,
      artifact,
      runDir,
      transport,
      onEvent: show,
      signal: context.signal,
      ...(federation.server.nats === undefined && federation.server.tls
        ? { renewCertificate: () => renewTlsIdentity(runDir, certificateHosts(federation.server.host)) }
        : {}),
      ...(evaluator === undefined ? {} : { evaluateCentrally: evaluator.evaluateFile }),
    });
    if (missing() > 0) coordinator.invite();
    const summary = await coordinator.run();
    if (summary.reason === 'failed') {
      throw new CliError(
        'FED_CLI_RUN_FAILED',
        `The run ended without reaching its goal: ${summary.message}.`,
        {
          where: runDir,
          todo: 'What was committed is kept; the same command tries again from there.',
        },
      );
    }
    if (context.signal.aborted) {
      throw new CliError('FED_CLI_INTERRUPTED', `Paused after round ${summary.rounds}.`, {
        where: runDir,
        todo: 'The same command goes on.',
      });
    }
    return summary;
  } finally {
    session.end();
    await coordinator?.close();
    await evaluator?.close();
  }
}
