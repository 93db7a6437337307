import { readFile } from 'node:fs/promises';
import {
  DEFAULT_LIMITS,
  DTYPES,
  FRAME_FORMAT_VERSION,
  MAX_MESSAGE_VALUES,
  messageSchema,
  PROTOCOL_VERSION,
} from '@tributary/shared-protocol';
import { expect, test } from 'vitest';
import { MAX_DEPTH } from '../src/messagepack.ts';
import { MAX_META_ENTRIES, MAX_META_STRING_BYTES } from '../src/tensors.ts';

const docs = new URL('../../../docs/', import.meta.url);
/** A page's text, whichever way its tables are padded. */
const pageOf = async (name: string) => (await readFile(new URL(name, docs), 'utf8')).replace(/ +/g, ' ');
const protocol = await pageOf('protocol.md');
const limits = await pageOf('limits.md');

/** 4194304 as 4 MiB, 16384 as 16,384: the ways in which the page writes numbers. */
function asWritten(value: number): string[] {
  const units = [
    [1024 ** 3, 'GiB'],
    [1024 ** 2, 'MiB'],
  ] as const;
  const unit = units.find(([size]) => value >= size && value % size === 0);
  return [value.toLocaleString('en'), ...(unit ? [`${value / unit[0]} ${unit[1]}`] : [])];
}

test.each(Object.entries(DEFAULT_LIMITS))('docs/limits.md gives the default of %s', (name, value) => {
  const row = limits.split('\n').find((line) => line.startsWith(`| \`${name}\``));
  const stated = row?.split('|')[2]?.trim();
  expect(asWritten(value)).toContain(stated);
});

test('docs/limits.md gives the fixed limits of the codecs', () => {
  for (const value of [MAX_MESSAGE_VALUES, MAX_DEPTH, MAX_META_ENTRIES, MAX_META_STRING_BYTES]) {
    expect(limits).toContain(`${value.toLocaleString('en')}`);
  }
});

test('docs/protocol.md states the versions of the code', () => {
  expect(protocol).toContain(`Protocol version **${PROTOCOL_VERSION.major}.${PROTOCOL_VERSION.minor}**`);
  expect(protocol).toContain(`tensor frame format **${FRAME_FORMAT_VERSION}**`);
});

test.each(messageSchema.options.map((option) => option.shape))(
  'docs/protocol.md describes $type.value and each of its fields',
  ({ type, ...fields }) => {
    // A message's paragraph begins with, or has, its name in bold, and ends with an empty line.
    const start = protocol.indexOf(`**\`${type.value}\`**`);
    expect(start, `a description of ${type.value}`).toBeGreaterThan(0);
    const paragraph = protocol.slice(start, protocol.indexOf('\n\n', start));
    // The reply has the same fields as its request, and says so.
    const same = type.value === 'chunk-data';
    for (const field of same ? [] : Object.keys(fields)) {
      expect(paragraph, `${type.value}.${field}`).toMatch(new RegExp(`\`${field}\\??\``));
    }
  },
);

test('docs/protocol.md lists every dtype', () => {
  const table = protocol.slice(
    protocol.indexOf('| `dtype` | element'),
    protocol.indexOf('All data is little-endian'),
  );
  const listed = [...table.matchAll(/`(\w+)`/g)].map(([, name]) => name).filter((name) => name !== 'dtype');
  expect(listed.sort()).toEqual([...DTYPES].sort());
});
