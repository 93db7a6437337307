/**
 * Finds and reads a site's policy. A policy that can't be read stops the site: one that is silently not applied would
 * be worse than none. Every mistake is named at once, with its line.
 */
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { isMap, isScalar, LineCounter, type Node, type Pair, parseDocument } from 'yaml';
import type { z } from 'zod';
import { closest } from '../data/spelling.ts';
import { PolicyError } from '../errors.ts';
import { policySchema, type SitePolicy } from './schema.ts';

export const POLICY_FILE = 'site-policy.yaml';

export interface LoadedPolicy {
  /** Where it was read from; undefined when this site has none. */
  readonly file: string | undefined;
  readonly rules: SitePolicy;
}

/**
 * Returns the policy in `file`, else in `site-policy.yaml` in `dataDir`, else one without rules.
 *
 * Throws FED_POLICY_UNREADABLE for a file that was named and is not there, that is no YAML, or whose name is nearly
 * right; FED_POLICY_INVALID with every mistake.
 */
export async function loadPolicy(options: {
  readonly file?: string | undefined;
  readonly dataDir?: string | undefined;
}): Promise<LoadedPolicy> {
  const file = options.file ?? (options.dataDir === undefined ? undefined : await findIn(options.dataDir));
  if (file === undefined) return { file, rules: {} };
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    const problem = missing ? 'there is no such file' : `it can't be read: ${(error as Error).message}`;
    throw new PolicyError(
      'FED_POLICY_UNREADABLE',
      `${file}: ${problem}. The site does not join without it.`,
      {
        cause: error,
      },
    );
  }
  return { file, rules: parsePolicy(text, file) };
}

/** The rules in the text of a policy; `file` is what messages call it. Throws as `loadPolicy` does. */
export function parsePolicy(text: string, file: string): SitePolicy {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const broken = [...document.errors, ...document.warnings];
  if (broken.length > 0) {
    const told = broken.map(({ pos, message }) => `line ${lines.linePos(pos[0]).line}: ${message}`);
    throw new PolicyError(
      'FED_POLICY_UNREADABLE',
      `${file} is not YAML that can be used: ${told.join('; ')}`,
    );
  }
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 }) ?? {};
  } catch (error) {
    throw new PolicyError('FED_POLICY_UNREADABLE', `${file}: ${(error as Error).message}`, { cause: error });
  }
  const result = policySchema.safeParse(value);
  if (result.success) return result.data;
  const problems = result.error.issues
    .flatMap((issue) => describe(issue, document.contents, lines))
    .sort((a, b) => lineOf(a) - lineOf(b));
  throw new PolicyError(
    'FED_POLICY_INVALID',
    `${file} has ${problems.length === 1 ? 'a mistake' : `${problems.length} mistakes`}, and no part of it is used until ` +
      `${problems.length === 1 ? 'it is' : 'they are'} mended:\n${problems.map((line) => `  ${line}`).join('\n')}`,
  );
}

/** The policy in a data folder. A name that is nearly right is an error, not a site without a policy. */
async function findIn(dataDir: string): Promise<string | undefined> {
  // A data folder that is not there is reported by the checks of the data.
  const names = await readdir(dataDir).catch(() => [] as string[]);
  if (names.includes(POLICY_FILE)) return join(dataDir, POLICY_FILE);
  const nearly = names.find(
    (name) => /^\.?site[-_ ]?policy(\.|$)/i.test(name) && !/(~|\.bak|\.orig)$/.test(name),
  );
  if (nearly === undefined) return undefined;
  throw new PolicyError(
    'FED_POLICY_UNREADABLE',
    `${join(dataDir, nearly)} looks like a site's policy, but it has to be called ${POLICY_FILE}. Rename it, or name it with --policy.`,
  );
}

/** An issue as "line 3, key maxRounds: …", one line an unknown key. */
function describe(issue: z.core.$ZodIssue, contents: Node | null, lines: LineCounter): string[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => {
      const known = issue.path.length === 0 ? Object.keys(policySchema.shape) : [];
      const near = closest(key, known);
      const hint =
        near !== undefined
          ? `; did you mean ${near}?`
          : known.length > 0
            ? `; the keys are ${known.join(', ')}`
            : '';
      return `${place([...issue.path, key], contents, lines)}: there is no such key${hint}`;
    });
  }
  const inner = issue.code === 'invalid_union' ? deepest(issue) : issue;
  const path = issue.path.concat(inner === issue ? [] : inner.path);
  if (inner.code === 'unrecognized_keys') return describe({ ...inner, path }, contents, lines);
  const missing = inner.code === 'invalid_type' && inner.message.endsWith('received undefined');
  const text = missing
    ? `is missing; expected a ${inner.expected}`
    : inner.message.replace(/^(Invalid (input|option)|Too (small|big)): /, '');
  return [`${place(path, contents, lines)}: ${text}`];
}

/** Of a union, what the option that came furthest says; the union's own words when none came further. */
function deepest(issue: z.core.$ZodIssueInvalidUnion): z.core.$ZodIssue {
  let best: z.core.$ZodIssue | undefined;
  for (const [first] of issue.errors) {
    if (first === undefined) continue;
    const inner = first.code === 'invalid_union' ? deepest(first) : first;
    const path = first.path.concat(inner === first ? [] : inner.path);
    // A wrong type says that this option was not meant.
    const meant = inner.code !== 'invalid_type' || path.length > 0;
    if (meant && path.length >= (best?.path.length ?? 0)) best = { ...inner, path };
  }
  return best ?? issue;
}

function place(path: readonly PropertyKey[], contents: Node | null, lines: LineCounter): string {
  const offset = offsetOf(path, contents);
  const line = offset === undefined ? '' : `line ${lines.linePos(offset).line}, `;
  const key = path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`)).join('');
  return path.length === 0 ? `${line}the file` : `${line}key ${key.replace(/^\./, '')}`;
}

function lineOf(problem: string): number {
  return Number(/^line (\d+)/.exec(problem)?.[1] ?? 0);
}

/** Where the key (or the nearest one around it) begins in the text. */
function offsetOf(path: readonly PropertyKey[], contents: Node | null): number | undefined {
  let node: unknown = contents;
  let offset = contents?.range?.[0];
  for (const part of path) {
    let next: unknown;
    let start: number | undefined;
    if (isMap(node)) {
      const pair = node.items.find(
        (item: Pair) => isScalar(item.key) && String(item.key.value) === String(part),
      );
      next = pair?.value;
      start = isScalar(pair?.key) ? pair.key.range?.[0] : undefined;
    } else if (typeof part === 'number') {
      next = (node as { items?: unknown[] } | undefined)?.items?.[part];
      start = (next as Node | undefined)?.range?.[0];
    }
    if (start === undefined) break;
    offset = start;
    node = next;
  }
  return offset;
}

/** A policy's name for a person: the file's own name, or that there is none. */
export function nameOf({ file }: LoadedPolicy): string {
  return file === undefined ? 'no policy' : basename(file);
}
