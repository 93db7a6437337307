import { execFile, spawnSync } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { decodeFrame, decodeMessage } from '@tributary/shared-protocol';
import { describe, expect, test } from 'vitest';
import { frameAsJson, makeVectors } from './vectors.ts';

const folder = new URL('./vectors/', import.meta.url);
interface Entry {
  readonly name: string;
  readonly kind: 'message' | 'frame';
  readonly expected?: unknown;
  readonly refused?: true;
}
const entries = JSON.parse(await readFile(new URL('index.json', folder), 'utf8')) as Entry[];
const bytesOf = (name: string) => readFile(new URL(`${name}.bin`, folder));

describe('golden vectors', () => {
  test('the folder holds the vectors of the index and no others', async () => {
    const files = (await readdir(folder)).filter((file) => file.endsWith('.bin'));
    expect(files.sort()).toEqual(entries.map(({ name }) => `${name}.bin`).sort());
  });

  test('this version writes the same bytes', async () => {
    const vectors = makeVectors();
    expect(vectors.map(({ name }) => name)).toEqual(entries.map(({ name }) => name));
    for (const { name, bytes } of vectors) {
      const golden = await bytesOf(name);
      expect(Buffer.from(bytes).toString('hex'), name).toBe(golden.toString('hex'));
    }
  });

  test.each(entries)('$name reads as it did', async ({ name, kind, expected, refused }) => {
    const bytes = await bytesOf(name);
    if (refused) expect(() => decodeFrame(bytes)).toThrow(expect.objectContaining({ name: 'ProtocolError' }));
    else expect(kind === 'frame' ? frameAsJson(bytes) : decodeMessage(bytes)).toEqual(expected);
  });
});

describe('another language', () => {
  const hasPython = spawnSync('python3', ['--version']).status === 0;

  test('Python reads every vector to the same values, and refuses the spoiled ones', async (context) => {
    if (!hasPython) context.skip('python3 is not installed here');
    const script = fileURLToPath(new URL('./read_vectors.py', import.meta.url));
    const { stdout } = await promisify(execFile)('python3', ['-I', script, fileURLToPath(folder)]);
    const read = JSON.parse(stdout) as Record<string, unknown>;
    expect(Object.keys(read).sort()).toEqual(entries.map(({ name }) => name).sort());
    for (const { name, expected, refused } of entries) {
      const wanted = refused ? { refused: expect.any(String) } : expected;
      expect(read[name], name).toEqual(wanted);
    }
  });
});
