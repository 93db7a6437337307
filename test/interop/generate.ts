/**
 * Writes the golden vectors anew. Run it when the wire format changes on purpose, with a new version in
 * docs/protocol.md: node --conditions=@tributary/source --import tsx test/interop/generate.ts
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { makeVectors } from './vectors.ts';

const folder = new URL('./vectors/', import.meta.url);
await mkdir(folder, { recursive: true });
const index = [];
for (const { name, kind, bytes, expected } of makeVectors()) {
  await writeFile(new URL(`${name}.bin`, folder), bytes);
  index.push(expected === undefined ? { name, kind, refused: true } : { name, kind, expected });
}
await writeFile(new URL('index.json', folder), `${JSON.stringify(index, null, 2)}\n`);
console.log(`wrote ${index.length} vectors`);
