/** The yardstick: the same bytes down and up over the same links, with nothing in between. */

import { party } from './party.ts';
import { createTransport } from './transport.ts';

const { setup, send, on } = party<{ bytes: number; workers: number; tls: boolean }>();

const transport = await createTransport(setup.tls);
const model = new Uint8Array(setup.bytes);
const links: import('@tributary/shared-protocol').Link[] = [];
let uploaded = 0;
let startedAt = 0;

const listener = await transport.listen((link) => {
  links.push(link);
  const chunkBytes = link.preferredChunkBytes;
  link.onRequest(async ({ head, body }) => {
    if (body !== undefined) {
      uploaded += body.length;
      if (uploaded === setup.bytes * setup.workers) send('round', (performance.now() - startedAt) / 1000);
      return { head };
    }
    const offset = new DataView(head.buffer, head.byteOffset).getUint32(0) * chunkBytes;
    return { head, body: model.subarray(offset, Math.min(offset + chunkBytes, model.length)) };
  });
  if (links.length === setup.workers) send('ready');
});
send('listening', { url: listener.url, fingerprint: listener.fingerprint });

on('go', () => {
  uploaded = 0;
  startedAt = performance.now();
  for (const link of links) link.notify({ head: new Uint8Array(1) });
});
