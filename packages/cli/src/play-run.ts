/** One run from its first listening to its end, on the screen: what `coordinator` does once its configuration stands. */
import { existsSync, statSync } from 'node:fs';
import {
  type Coordinator,
  createCoordinator,
  type Leadership,
  type RunStore,
  type RunSummary,
  runPaths,
} from '@tributary/coordinator';
import type { RunEvent } from '@tributary/shared-protocol';
import { type CliContext, printJson } from './context.ts';
import { CliError } from './errors.ts';
import type { PreparedFederation } from './federation.ts';
import { certificateHosts, renewTlsIdentity } from './identity.ts';
import { isRun } from './runs.ts';
import { createRunView } from './terminal/run-view.ts';
import { openSession } from './terminal/session.ts';
import { jetStreamStore, listeningTransport } from './transports.ts';

export interface PlayOptions {
  /** Events as JSON lines instead of text. */
  readonly json: boolean;
  /** Where the run is kept beside its folder. */
  readonly store: 'files' | 'jetstream';
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
  const view = createRunView({ colours, rounds: federation.rounds, print: (text) => session.print(text) });
  const session = openSession(context, (now) => (options.json ? [] : view.live(now)));
  let store: RunStore | undefined;
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
    let leadership: Leadership | undefined;
    if (options.store === 'jetstream') {
      store = await jetStreamStore(federation.server);
      leadership = await lead(store);
    }
    coordinator = await createCoordinator({
      federation,
      artifact,
      runDir,
      transport: await listeningTransport(federation.server, runDir, leadership),
      ...(leadership === undefined ? {} : { leadership }),
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
    await store?.close();
    await evaluator?.close();
  }

  /** Waits for as long as another leads. */
  async function lead(from: RunStore): Promise<Leadership> {
    const say = (event: { readonly type: string; readonly [field: string]: unknown }, text: string) => {
      if (options.json) printJson(context, { at: Date.now(), ...event });
      else session.print(text);
    };
    try {
      const leadership = await from.lead({
        signal: context.signal,
        follow: { paths: runPaths(runDir), federation },
        onStandby: ({ term, where }) =>
          say(
            { type: 'standing-by', term, leader: where },
            `  standing by  ${where} leads, in term ${term}; this coordinator takes over when it is gone`,
          ),
      });
      const { term } = leadership;
      say({ type: 'leading', term }, `  leading      ${colours.dim(`term ${term}`)}`);
      return leadership;
    } catch (error) {
      if (!context.signal.aborted) throw error;
      throw new CliError('FED_CLI_INTERRUPTED', 'Stopped standing by.', {
        where: runDir,
        todo: 'The same command stands by again.',
      });
    }
  }
}
