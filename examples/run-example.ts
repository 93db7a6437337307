/**
 * Runs an example as its README tells, with less data, smaller images and fewer rounds: every line of the README that
 * starts with `npx tributary` is carried out, in order, as a real process. `node run-example.ts EXAMPLE`.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { EXAMPLES, type ExampleName, writeExampleData } from './write-digits.ts';

const here = fileURLToPath(new URL('.', import.meta.url));
/** What `npx tributary` is in a checkout, from the sources whether or not something is built. */
const TRIBUTARY = [
  '--conditions=@tributary/source',
  '--import',
  import.meta.resolve('tsx'),
  join(here, '..', 'packages', 'cli', 'src', 'main.ts'),
];

const REDUCED: Readonly<Record<ExampleName, { perDigit: number; rounds: number; config: string }>> = {
  digits: { perDigit: 120, rounds: 3, config: '' },
  'image-binary': {
    perDigit: 80,
    rounds: 2,
    config: 'input: { ...base.input, height: 32, width: 32 }, training: { ...base.training, batchSize: 16 },',
  },
};

export interface ExampleResult {
  /** The README's commands that were carried out, without `npx tributary`. */
  readonly commands: readonly string[];
  /** Example counts and metrics, as `evaluate` printed them. */
  readonly evaluation: { readonly examples: number; readonly metrics: Readonly<Record<string, number>> };
  readonly prediction: {
    readonly classes: readonly { readonly name: string; readonly probability: number }[];
  };
  readonly rounds: number;
}

/** Plays the example in a new folder, which is removed afterwards. Rejects when a command ends with another code than 0. */
export async function runExample(name: ExampleName): Promise<ExampleResult> {
  const { perDigit, rounds, config } = REDUCED[name];
  const dir = mkdtempSync(join(tmpdir(), `tributary-${name}-`));
  const children: ChildProcess[] = [];
  try {
    await writeExampleData(name, join(dir, 'data'), perDigit);
    const base = JSON.stringify(join(here, name, 'tributary.config.ts'));
    writeFileSync(
      join(dir, 'tributary.config.ts'),
      `import base from ${base};\nexport default { ...base, ${config} rounds: ${rounds} };\n`,
    );
    const commands = readmeCommands(name);
    const after = (word: string) => commands.filter((command) => command[0] === word);
    const [lead] = after('coordinator');
    const joins = after('join');
    if (lead === undefined || joins.length !== EXAMPLES[name].sites.length) {
      throw new Error(
        `${name}/README.md should start a coordinator and ${EXAMPLES[name].sites.length} sites`,
      );
    }

    const waiting = [...joins];
    const sites: Promise<Record<string, unknown>[]>[] = [];
    const played = await play(children, dir, [...lead, '--host', '127.0.0.1', '--port', '0'], (event) => {
      const site = event['type'] === 'invite' ? waiting.shift() : undefined;
      if (site === undefined) return;
      const argv = site.map((word) => (word.startsWith('trib1') ? String(event['invite']) : word));
      sites.push(play(children, dir, [...argv, '--state-dir', join('state', String(sites.length))]));
    });
    await Promise.all(sites);
    const [evaluate] = await Promise.all(after('evaluate').map((argv) => play(children, dir, argv)));
    for (const argv of after('export')) await play(children, dir, argv);
    const [predict] = await Promise.all(after('predict').map((argv) => play(children, dir, argv)));
    return {
      commands: commands.map((command) => command.join(' ')),
      evaluation: evaluate?.at(-1) as unknown as ExampleResult['evaluation'],
      prediction: predict?.at(-1) as unknown as ExampleResult['prediction'],
      rounds: Number(played.at(-1)?.['rounds']),
    };
  } finally {
    for (const child of children) if (child.exitCode === null) child.kill('SIGTERM');
    rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** The README's commands, as words. */
export function readmeCommands(name: ExampleName): string[][] {
  const readme = readFileSync(join(here, name, 'README.md'), 'utf8');
  const lines = readme.split('\n').filter((line) => line.startsWith('npx tributary '));
  return lines.map((line) => {
    const words = line.replace(/\s+#.*$/, '').match(/'[^']*'|\S+/g) ?? [];
    return words.slice(2).map((word) => word.replaceAll("'", ''));
  });
}

/** Runs one command with --json and resolves with its events. */
async function play(
  children: ChildProcess[],
  cwd: string,
  argv: readonly string[],
  onEvent: (event: Record<string, unknown>) => void = () => {},
): Promise<Record<string, unknown>[]> {
  const child = spawn(process.execPath, [...TRIBUTARY, ...argv, '--json'], { cwd });
  children.push(child);
  const events: Record<string, unknown>[] = [];
  const complaints: string[] = [];
  child.stderr.on('data', (data: Buffer) => complaints.push(data.toString()));
  createInterface({ input: child.stdout }).on('line', (line) => {
    const event = JSON.parse(line) as Record<string, unknown>;
    events.push(event);
    onEvent(event);
  });
  const code = await new Promise<number | null>((resolve) => {
    child.on('close', resolve);
  });
  if (code === 0) return events;
  throw new Error(
    `tributary ${argv[0]} ended with ${code}: ${JSON.stringify(events.at(-1))} ${complaints.join('')}`,
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const name = process.argv[2] ?? '';
  if (!Object.hasOwn(EXAMPLES, name))
    throw new TypeError(`"${name}" is not one of ${Object.keys(EXAMPLES).join(', ')}`);
  const { evaluation, rounds, commands } = await runExample(name as ExampleName);
  for (const command of commands) console.log(`ok  tributary ${command}`);
  console.log(`${rounds} rounds, ${evaluation.examples} test images`);
  for (const [metric, value] of Object.entries(evaluation.metrics))
    console.log(`Test ${metric}: ${value.toFixed(4)}`);
}
