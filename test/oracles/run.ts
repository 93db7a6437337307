/**
 * Runs every oracle file of a folder against the code: `npm run oracles -- DIR`. An oracle is numbers that another
 * implementation computed; the subject module of the file's name says how to compute them here. Exits with 1 on any
 * miss, and when the folder or a file is absent or malformed. A file whose subject is not built yet fails nothing; of
 * one that is partly built, the cases that were not run are listed by name.
 */
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { Score, type Subject } from './score.ts';

/** One for each file name; add a line when a subject is built. */
const SUBJECTS: Record<string, () => Promise<Subject>> = {
  accountant: async () => (await import('./accountant.ts')).accountant,
  'image-data-generator': async () => (await import('./image-data-generator.ts')).imageDataGenerator,
  strategies: async () => (await import('./strategies.ts')).strategies,
};

interface Row {
  file: string;
  cases: string;
  failed: string;
  worst: string;
  note: string;
}

const [folder, ...rest] = process.argv.slice(2);
if (folder === undefined || rest.length > 0) fail('Usage: npm run oracles -- DIR');

let names: string[];
try {
  names = (await readdir(folder)).filter((name) => name.endsWith('.json')).sort();
} catch (error) {
  fail(`${folder} can't be read: ${(error as Error).message}`);
}
if (names.length === 0) fail(`${folder} holds no oracle files (*.json).`);

const rows: Row[] = [];
const misses: string[] = [];
const skipped: string[] = [];
let broken = false;
for (const name of names) {
  const row: Row = { file: name, cases: '', failed: '', worst: '', note: '' };
  rows.push(row);
  const load = SUBJECTS[basename(name, '.json')];
  try {
    const text = await readFile(join(folder, name), 'utf8');
    const oracle: unknown = JSON.parse(text);
    if (typeof oracle !== 'object' || oracle === null || Array.isArray(oracle))
      throw new Error('it holds no object');
    if (!load) {
      row.note = 'not built yet';
      continue;
    }
    const score = new Score();
    await (await load())(oracle as Record<string, unknown>, score, text);
    if (score.cases + score.skipped.length === 0) throw new Error('it holds no cases');
    if (score.skipped.length > 0) row.note = `${score.skipped.length} more cases not built yet, listed below`;
    row.cases = String(score.cases);
    row.failed = String(score.misses.length);
    row.worst = score.worst.toExponential(1);
    skipped.push(...score.skipped.map((one) => `${name}: not built yet, not run: ${one}`));
    misses.push(...score.misses.map((miss) => `${name}: ${miss}`));
  } catch (error) {
    broken = true;
    row.note = `malformed: ${error instanceof Error ? error.message : String(error)}`;
  }
}

print(rows);
if (skipped.length > 0) console.log(`\n${skipped.join('\n')}`);
const shown = misses.slice(0, 20);
if (misses.length > 0) console.log(`\n${shown.join('\n')}`);
if (misses.length > shown.length) console.log(`… and ${misses.length - shown.length} more`);
process.exitCode = misses.length > 0 || broken ? 1 : 0;

function print(table: readonly Row[]): void {
  const all = [
    { file: 'oracle', cases: 'cases', failed: 'failed', worst: 'worst error', note: '' },
    ...table,
  ];
  const wide = (key: keyof Row) => Math.max(...all.map((row) => row[key].length));
  const [file, cases, failed, worst] = (['file', 'cases', 'failed', 'worst'] as const).map(wide);
  for (const row of all) {
    const cells = [
      row.file.padEnd(file!),
      row.cases.padStart(cases!),
      row.failed.padStart(failed!),
      row.worst.padStart(worst!),
      row.note,
    ];
    console.log(cells.join('  ').trimEnd());
  }
}

function fail(message: string): never {
  console.error(message);
  process.exit(1);
}
