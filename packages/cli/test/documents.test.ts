/** The documents against the program: every command line and every flag that they name is there. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createContext } from '../src/context.ts';
import { createProgram } from '../src/program.ts';
import { commandsIn, readPage, wordsOf } from './documents.ts';
import { ROOT } from './support.ts';

describe('every command line in the documents', () => {
  const stream = { write: () => true };
  const program = createProgram(
    createContext({
      cwd: ROOT,
      env: {},
      stdout: stream,
      stderr: stream,
      signal: new AbortController().signal,
    }),
    () => {},
  );
  const commands = new Map(program.commands.map((command) => [command.name(), command]));
  /** A command's own options, and those of the commands under it. */
  const optionsOf = (name: string) => {
    const command = commands.get(name);
    return command === undefined ? [] : [command, ...command.commands].flatMap(({ options }) => options);
  };
  const flagsOf = (name: string) =>
    new Set([...optionsOf(name), ...program.options].map((option) => option.long).concat(['--help']));
  const docs = readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' });
  const pages = [
    'README.md',
    'CONTRIBUTING.md',
    ...['digits', 'image-binary'].map((name) => `examples/${name}/README.md`),
    ...docs.filter((path) => path.endsWith('.md')).map((path) => join('docs', path)),
  ];

  test.each(pages)('%s: names commands and flags that there are', (path) => {
    const page = readPage(path);
    for (const line of [...commandsIn(page, 'blocks'), ...commandsIn(page, 'sentences')]) {
      const [name = '', ...rest] = wordsOf(line);
      expect([...commands.keys()], `${path}: tributary ${line}`).toContain(name);
      for (const flag of rest.filter((word) => word.startsWith('--')))
        expect([...flagsOf(name)], `${path}: tributary ${line}`).toContain(flag.replace(/=.*/, ''));
    }
  });

  test('docs/cli.md: every flag of every command, and no other', () => {
    const page = readPage('docs/cli.md');
    const sections = page.split(/^## /m).slice(1);
    const told = new Map<string, Set<string>>();
    for (const section of sections) {
      const title = section.split('\n')[0]!.split(', ');
      const flags = section.match(/--[a-z][a-z-]+/g) ?? [];
      for (const name of title) if (commands.has(name)) told.set(name, new Set(flags));
    }
    for (const [name, flags] of told) {
      const own = optionsOf(name).map((option) => option.long!);
      const shared = [...told]
        .filter(([, other]) => [...other].join() === [...flags].join())
        .map(([other]) => other);
      // A section on several commands names the flags of all of them.
      const theirs = new Set(shared.flatMap((other) => [...flagsOf(other)]));
      expect(
        [...flags].filter((flag) => !theirs.has(flag)),
        `section ${name}`,
      ).toEqual([]);
      const elsewhere = page.slice(0, page.indexOf('## '));
      expect(
        own.filter((flag) => !flags.has(flag) && !elsewhere.includes(flag)),
        `flags of ${name}`,
      ).toEqual([]);
    }
    expect([...told.keys()].sort()).toEqual([
      'audit',
      'coordinator',
      'demo',
      'evaluate',
      'export',
      'invite',
      'join',
      'members',
      'nats-config',
      'policy',
      'predict',
      'privacy',
      'revoke',
      'rotate',
      'status',
      'verify',
    ]);
  });

  test('--name and the like: flags that the how-to pages name by themselves are flags of some command', () => {
    const all = new Set([...commands.keys()].flatMap((name) => [...flagsOf(name)]));
    const named = ['lead', 'site']
      .map((name) => readPage(`docs/how-to/${name}.md`))
      .flatMap((page) => [...page.matchAll(/`(--[a-z-]+)`/g)].map(([, flag]) => flag!));
    expect(named.length).toBeGreaterThanOrEqual(3);
    expect(named.filter((flag) => !all.has(flag))).toEqual([]);
  });
});
