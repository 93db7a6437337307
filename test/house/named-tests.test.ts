/** A page may say that something is stopped only where a test of that name shows it. */
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

const read = (name: string): string => readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8');
const threatModel = claimsIn(read('threat-model.md'));
const knownDefects = read('known-defects.md');

describe.each([
  ['threat-model.md', threatModel],
  ['known-defects.md', claimsIn(knownDefects)],
])('docs/%s', (_page, claims) => {
  test('names tests that exist', () => {
    expect(claims.length).toBeGreaterThan(40);
    expect(claims.filter((claim) => !holds(claim))).toEqual([]);
  });
});

test('docs/known-defects.md: each row names a test, or says that it does not apply', () => {
  const rows = knownDefects.split('\n').filter((line) => /^\| (?!---|attack \||defect \|)/.test(line));
  expect(rows.length).toBeGreaterThan(40);
  const bare = rows.filter((row) => {
    const [, , here, tests] = row.split(/\s*\|\s*/);
    return claimsIn(tests!).length === 0 && !here!.startsWith('does not apply: ');
  });
  expect(bare).toEqual([]);
});

test('a test that was renamed or moved would be missed', () => {
  const { title, path } = threatModel[0]!;
  expect(holds({ title: `${title}, always`, path })).toBe(false);
  expect(holds({ title, path: path.replace('.test.ts', '.gone.test.ts') })).toBe(false);
});

interface Claim {
  readonly title: string;
  readonly path: string;
}

/** Links to test files; their text is a test's title, or the part of it that matters. */
function claimsIn(markdown: string): Claim[] {
  return [...markdown.matchAll(/\[([^\]]+)\]\(([^)]+\.test\.ts)\)/g)].map(([, title, path]) => ({
    title: title!.replace(/\s+/g, ' '),
    path: path!,
  }));
}

/** Whether the file has a `test(` or `it(`, or one of `each`, whose title has the words. */
function holds({ title, path }: Claim): boolean {
  const file = new URL(`../../docs/${path}`, import.meta.url);
  if (!existsSync(file)) return false;
  const titles = readFileSync(file, 'utf8').matchAll(/(?:\b(?:test|it)(?:\.\w+)*|\))\(\s*(['"`])(.*?)\1/g);
  return [...titles].some(([, , text]) => text!.includes(title));
}
