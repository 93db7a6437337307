/** What the documents in this repository say to type. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './support.ts';

/** The text of a document; `path` is relative to the root of the repository. */
export const readPage = (path: string): string => readFileSync(join(ROOT, path), 'utf8');

/** The command lines of a page without `tributary`: of its code blocks, or those within its sentences. */
export function commandsIn(page: string, where: 'blocks' | 'sentences'): string[] {
  const parts = page.split('```');
  const texts = parts.filter((_, i) => (i % 2 === 1) === (where === 'blocks'));
  return texts.flatMap((text) =>
    where === 'blocks'
      ? [...text.matchAll(/^npx tributary (.*?)(?:\s+#.*)?$/gm)].map(([, line]) => line!.trim())
      : [...text.matchAll(/`(?:npx )?tributary ([a-z][^`]*)`/g)].map(([, line]) =>
          line!.replaceAll(/\s+/g, ' '),
        ),
  );
}

/** A command line as a shell would split it. */
export const wordsOf = (line: string): string[] =>
  (line.match(/'[^']*'|\S+/g) ?? []).map((word) => word.replaceAll("'", ''));
