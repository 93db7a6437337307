/** Downloads the bytes chunk by chunk, then uploads as many: four requests in flight, as our blobs do. */

import { party } from './party.ts';
import { createTransport } from './transport.ts';

const { setup } = party<{ url: string; fingerprint?: string; bytes: number; tls: boolean }>();
const WINDOW = 4;

const transport = await createTransport(setup.tls);
const pin = setup.fingerprint === undefined ? {} : { fingerprint: setup.fingerprint };
const link = await transport.connect(setup.url, pin);
const update = new Uint8Array(setup.bytes);
const chunks = Math.ceil(setup.bytes / link.preferredChunkBytes);

link.onNotify(() => void round());

async function round(): Promise<void> {
  await inWindow((index) => link.request({ head: headOf(index) }));
  await inWindow((index) => {
    const offset = index * link.preferredChunkBytes;
    return link.request({
      head: headOf(index),
      body: update.subarray(offset, offset + link.preferredChunkBytes),
    });
  });
}

async function inWindow(ask: (index: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < chunks) await ask(next++);
  };
  await Promise.all(Array.from({ length: WINDOW }, lane));
}

function headOf(index: number): Uint8Array {
  const head = new Uint8Array(4);
  new DataView(head.buffer).setUint32(0, index);
  return head;
}
