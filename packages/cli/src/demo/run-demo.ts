/**
 * The demo from end to end: digits on disk, a coordinator in this process, a process a site, rounds on the screen, and
 * at the end the model measured on images that no site holds.
 */
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { createCoordinator, type RunSummary } from '@tributary/coordinator';
import type { RunEvent } from '@tributary/shared-protocol';
import { exportModel } from '../commands/export.ts';
import { type CliContext, printJson } from '../context.ts';
import { CliError } from '../errors.ts';
import { createEvaluator, type Evaluator } from '../evaluation.ts';
import { prepareFederation } from '../federation.ts';
import { openModel, type TrainedModel } from '../models.ts';
import { plotRun } from '../plot/run-plot.ts';
import { openPredictor } from '../prediction.ts';
import { formatCount, formatMetric, formatSeconds } from '../terminal/numbers.ts';
import { createRunView } from '../terminal/run-view.ts';
import { openSession } from '../terminal/session.ts';
import { padEnd } from '../terminal/text.ts';
import { listeningTransport } from '../transports.ts';
import { openDigits, writeDigits } from './digits.ts';
import { type DemoNatsServer, startDemoNatsServer } from './nats-server.ts';
import { confusionTable, holdingsTable } from './report.ts';
import { DIGIT_CLASSES, demoFederation, PRIVATE_DELTA, siteNames } from './settings.ts';
import { type Split, splitDigits } from './split.ts';
import { startWorkerProcess, type WorkerProcess } from './worker-process.ts';

export interface DemoOptions {
  readonly rounds: number;
  /** 2 to 8. */
  readonly sites: number;
  readonly seed: number;
  readonly engine: string;
  readonly transport: 'socketio' | 'nats';
  /** With differential privacy for each digit: the most that a site may spend. @default without */
  readonly epsilon: number | undefined;
  readonly keep: boolean;
  readonly json: boolean;
}

export interface DemoResult {
  readonly loss: number;
  readonly accuracy: number;
  /** Rows are the true class, columns the predicted one. */
  readonly confusion: readonly (readonly number[])[];
  readonly sites: Readonly<Record<string, number>>;
  readonly seconds: number;
  /** Of the site that spent most; there when the demo was private. */
  readonly epsilonSpent?: number;
  /** Absolute paths. */
  readonly runDir: string;
  readonly modelDir: string;
  readonly plot: string;
}

type Say = (text?: string) => void;

/**
 * Runs the demo in the folder `demo` of the project (or of the current folder) and returns what it measured. Throws
 * FED_CLI_DEMO_DIGITS_MISSING, FED_CLI_DEMO_PROCESS when a site's process ended early, FED_CLI_INTERRUPTED.
 */
export async function runDemo(context: CliContext, options: DemoOptions): Promise<DemoResult> {
  const startedAt = performance.now();
  const root = context.env['TRIBUTARY_ROOT'] ?? context.cwd;
  const demoDir = join(root, 'demo');
  const shown = (path: string) => relative(context.cwd, path) || '.';
  const say: Say = options.json ? () => {} : (text = '') => session.print(text);
  const sites = siteNames(options.sites);
  const view = createRunView({
    colours: context.colours,
    rounds: options.rounds,
    sites,
    // Where each digit is protected, sites tell no metrics.
    maxSiteColumns: options.epsilon === undefined ? 8 : 0,
    quiet: true,
    print: say,
  });
  const session = openSession(context, (now) => (options.json ? [] : view.live(now)));
  const { bold, dim } = context.colours;
  try {
    say(`\n${bold('Tributary')}  ${dim('one model, several sites, no image leaves its site')}\n`);
    const { split, dataDir } = await prepareDigits(context, demoDir, options, sites, say);
    for (const line of holdingsTable(split.trainCounts, context.colours)) say(line);
    say(dim(`\n  ${formatCount(split.testCount)} more are a common test set that no site holds.`));

    const runDir = await freshRunDir(demoDir, options.keep);
    const nats =
      options.transport === 'nats' ? await startDemoNatsServer(join(runDir, 'nats'), sites) : undefined;
    const play = { options, demoDir, dataDir, runDir, sites, say, nats, onEvent: view.on };
    const played = await playDemo(context, play).finally(() => nats?.stop());

    const model = await openModel(context.cwd, runDir, 'last');
    const modelDir = join(runDir, 'model');
    await exportModel(model, modelDir, 'layers-model');
    const plot = join(runDir, 'curves.svg');
    await writeFile(
      plot,
      plotRun(played.events, {
        title: `Handwritten digits, ${sites.length} sites`,
        metric: 'accuracy',
        sites,
      }),
    );
    const confusion = await confuse(model, split, join(dataDir));
    const last = played.events.findLast((event) => event.type === 'evaluated');
    const bySite = Object.fromEntries(
      last?.sites.map((site) => [site.name, site.metrics['accuracy'] ?? 0]) ?? [],
    );
    const committed = played.events.findLast((event) => event.type === 'committed');
    const epsilonSpent = committed?.privacy?.epsilonSpent ?? 0;
    const seconds = (performance.now() - startedAt) / 1000;
    const { loss = Number.NaN, accuracy = Number.NaN } = last?.central ?? {};

    say(`\n${bold(`Test loss: ${formatMetric(loss)}`)}`);
    say(bold(`Test accuracy: ${formatMetric(accuracy)}`));
    say(
      dim(
        `on the ${formatCount(split.testCount)} digits of the common test set, with the model of round ${model.round}\n`,
      ),
    );
    say(dim('  what the digit is (rows), what the model says (columns)'));
    for (const line of confusionTable(confusion, DIGIT_CLASSES, context.colours)) say(line);
    if (options.epsilon === undefined) {
      say(dim('\n  accuracy on the test images of each site'));
      for (const site of sites) say(`  ${padEnd(site, 8)}  ${formatMetric(bySite[site])}`);
    } else {
      say(
        `\n${bold(`Privacy: epsilon ${epsilonSpent.toFixed(2)} of ${options.epsilon}`)} ${dim(`at delta ${PRIVATE_DELTA}`)}`,
      );
      say(dim('of each digit at its site, by the books of the coordinator; every site keeps its own'));
      say(dim('updates were masked: the coordinator learned their sums, and no single one'));
      if (played.summary.reason === 'privacy-budget') say(`  ${played.summary.message}`);
    }
    say(`\n  run folder  ${shown(runDir)}`);
    say(`  curves      ${shown(plot)}`);
    say(`  model       ${shown(modelDir)}  ${dim('a TensorFlow.js LayersModel')}`);
    say(
      dim(
        `\n  ${formatSeconds(seconds)} in all. Try: npm run tributary -- predict ${shown(modelDir)} ${shown(join(dataDir, split.files[0]!.path))}\n`,
      ),
    );
    const privacy = options.epsilon === undefined ? {} : { epsilonSpent };
    return { loss, accuracy, confusion, sites: bySite, seconds, ...privacy, runDir, modelDir, plot };
  } finally {
    session.end();
  }
}

async function prepareDigits(
  context: CliContext,
  demoDir: string,
  options: DemoOptions,
  sites: string[],
  say: Say,
): Promise<{ split: Split; dataDir: string }> {
  const startedAt = performance.now();
  const digits = await openDigits([
    context.cwd,
    ...(context.env['TRIBUTARY_ROOT'] === undefined ? [] : [context.env['TRIBUTARY_ROOT']]),
  ]);
  // Where each digit is protected, a small site would soon have spent its budget; and no site measures on its own.
  const dealt = options.epsilon === undefined ? {} : { even: true, concentration: 20, siteTestShare: 0 };
  const split = splitDigits({ seed: options.seed, sites, counts: digits.counts, ...dealt });
  const dataDir = join(demoDir, 'data');
  const wrote = await writeDigits({
    dir: dataDir,
    files: split.files,
    digits: async () => digits,
    signal: context.signal,
  });
  const how = wrote
    ? `written as PNG in ${formatSeconds((performance.now() - startedAt) / 1000)}`
    : 'already there';
  say(
    `  ${formatCount(split.files.length)} real handwritten digits in ${relative(context.cwd, dataDir)}, ${how}\n`,
  );
  return { split, dataDir };
}

/** An empty folder for the run: `demo/run`, or with `keep` one with the next free number. */
async function freshRunDir(demoDir: string, keep: boolean): Promise<string> {
  const names = await readdir(demoDir);
  if (!keep) await rm(join(demoDir, 'run'), { recursive: true, force: true });
  const taken = new Set(keep ? names : []);
  let name = 'run';
  for (let number = 2; taken.has(name); number++) name = `run-${number}`;
  const dir = join(demoDir, name);
  await mkdir(join(dir, 'sites'), { recursive: true });
  return dir;
}

interface PlayDemo {
  readonly options: DemoOptions;
  readonly demoDir: string;
  readonly dataDir: string;
  readonly runDir: string;
  readonly sites: readonly string[];
  readonly say: Say;
  readonly nats: DemoNatsServer | undefined;
  readonly onEvent: (event: RunEvent) => void;
}

async function playDemo(
  context: CliContext,
  demo: PlayDemo,
): Promise<{ summary: RunSummary; events: RunEvent[] }> {
  const { options, demoDir, dataDir, runDir, sites, say, nats } = demo;
  const { green, dim } = context.colours;
  const configFile = join(demoDir, 'tributary.config.json');
  const config = demoFederation({
    ...options,
    dataDir: relative(demoDir, dataDir),
    nats: nats && {
      url: nats.url,
      credentials: relative(demoDir, nats.coordinatorKey),
      ca: relative(demoDir, nats.certificate),
    },
  });
  await writeFile(configFile, `${JSON.stringify(config, undefined, 2)}\n`);
  const prepared = await prepareFederation(configFile, context.cwd, { runDir });
  const events: RunEvent[] = [];
  const failed = new AbortController();
  const signal = AbortSignal.any([context.signal, failed.signal]);
  const workers: WorkerProcess[] = [];
  let evaluator: Promise<Evaluator> | undefined;
  const coordinator = await createCoordinator({
    federation: prepared.federation,
    artifact: prepared.artifact,
    runDir,
    transport: await listeningTransport(prepared.federation.server, runDir),
    signal,
    evaluateCentrally: async (file) => (await evaluator!).evaluateFile(file),
    onEvent(event) {
      events.push(event);
      if (options.json) return printJson(context, event);
      demo.onEvent(event);
      if (event.type === 'ready') {
        const pid = workers.find((worker) => worker.name === event.name)?.pid;
        say(
          `  ${green('✓')} ${padEnd(event.name, 8)} is ready  ${dim(`process ${pid}, engine ${event.engine}`)}`,
        );
      }
    },
  });
  try {
    say(
      `\n  coordinator at ${coordinator.url}, ${sites.length} worker processes join it over ${nats ? 'NATS with TLS' : 'TLS'}`,
    );
    for (const name of sites) {
      workers.push(
        startWorkerProcess({
          name,
          invite: coordinator.invite({ uses: 1 }),
          dataDir: join(dataDir, name),
          stateDir: join(runDir, 'sites', name),
          logFile: join(runDir, 'sites', `${name}.log`),
          engine: options.engine,
          natsKey: nats?.keyOf(name),
        }),
      );
    }
    evaluator = createEvaluator({
      federation: prepared.federation,
      dataDir: join(dataDir, 'test'),
      imageThreads: 0,
    });
    evaluator.catch((error) => failed.abort(error));
    let running = true;
    for (const worker of workers)
      void worker.ended.then(
        (end) => running && end.code !== 0 && failed.abort(processError(worker, end, runDir)),
      );
    const summary = await coordinator.run();
    running = false;
    if (failed.signal.aborted) throw failed.signal.reason;
    if (context.signal.aborted)
      throw new CliError('FED_CLI_INTERRUPTED', `The demo was stopped after round ${summary.rounds}.`);
    if (summary.reason === 'failed')
      throw new CliError('FED_CLI_RUN_FAILED', `The demo's run failed: ${summary.message}.`, {
        where: runDir,
      });
    await Promise.all(workers.map((worker) => worker.ended));
    return { summary, events };
  } finally {
    await Promise.all(workers.map((worker) => worker.stop()));
    await coordinator.close();
    await (await evaluator?.catch(() => undefined))?.close();
  }
}

function processError(worker: WorkerProcess, end: Awaited<WorkerProcess['ended']>, runDir: string): CliError {
  return new CliError(
    'FED_CLI_DEMO_PROCESS',
    `The worker process of ${worker.name} ended with exit code ${end.code}: ${end.complaint ?? 'it gave no reason'}`,
    {
      where: join(runDir, 'sites', `${worker.name}.log`),
    },
  );
}

/** Counts of (true class, predicted class) over the common test set. */
async function confuse(model: TrainedModel, split: Split, dataDir: string): Promise<number[][]> {
  const matrix = DIGIT_CLASSES.map(() => DIGIT_CLASSES.map(() => 0));
  const predictor = await openPredictor(model, 'auto');
  try {
    const test = split.files.filter(({ path }) => path.startsWith('test/'));
    const predictions = await predictor.predict(test.map(({ path }) => join(dataDir, path)));
    for (const [i, { digit }] of test.entries()) matrix[digit]![Number(predictions[i]![0]!.name)]!++;
  } finally {
    predictor.close();
  }
  return matrix;
}
