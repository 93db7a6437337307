/** docs/threat-model.md may say that something is stopped only where a test of that name shows it. */
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

const page = new URL('../../docs/threat-model.md', import.meta.url);
const claims = claimsIn(readFileSync(page, 'utf8'));

describe('docs/threat-model.md', () => {
  test('names tests that exist', () => {
    expect(claims.length).toBeGreaterThan(40);
    expect(claims.filter((claim) => !holds(claim))).toEqual([]);
  });

  test('would be found out if one were renamed or moved', () => {
    const { title, path } = claims[0]!;
    expect(holds({ title: `${title}, always`, path })).toBe(false);
    expect(holds({ title, path: path.replace('.test.ts', '.gone.test.ts') })).toBe(false);
  });
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

/** Whether the file has a `test(` or `it(` whose title has the words. */
function holds({ title, path }: Claim): boolean {
  const file = new URL(path, page);
  if (!existsSync(file)) return false;
  const titles = [...readFileSync(file, 'utf8').matchAll(/\b(?:test|it)(?:\.\w+)*\(\s*(['"`])(.*?)\1/g)];
  return titles.some(([, , text]) => text!.includes(title));
}
