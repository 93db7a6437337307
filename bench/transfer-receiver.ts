/** Where the bytes of `bench -- transport` go: fetched as blobs and checked, or, as the yardstick, only counted. */
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect as connectNats } from '@nats-io/transport-node';
import {
  type BlobRef,
  type BlobSink,
  type Channel,
  createBlobShelf,
  createChannel,
  expectLargeBuffers,
  fetchBlob,
  type Transport,
} from '@tributary/shared-protocol';
import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import { createNatsTransport } from '@tributary/shared-protocol/nats';
import { createSocketioTransport } from '@tributary/shared-protocol/socketio';
import { Server } from 'socket.io';
import { party } from './party.ts';
import type { TransferSetup } from './transfer.ts';

const { setup, send, on } = party<TransferSetup>();
const { wire, workers, bytes, chunkBytes, port } = setup;
let startedAt = 0;
let received = 0;

on('go', () => {
  received = 0;
  startedAt = performance.now();
  send('going');
});

if (wire === 'raw nats') await countNats();
else if (wire === 'raw socketio') countSocketio();
else {
  expectLargeBuffers(); // as `tributary` does
  await fetchAll();
}

async function fetchAll(): Promise<void> {
  const memory = createMemoryTransport();
  const transport: Transport =
    wire === 'nats'
      ? createNatsTransport({ url: `nats://127.0.0.1:${port}/bench` })
      : wire === 'socketio'
        ? createSocketioTransport({ tls: false })
        : memory;
  const arrived: { channel: Channel; ref: BlobRef }[] = [];
  const listener = await transport.listen((link) => {
    const channel = createChannel(link);
    // A worker names its blob in a message; a plan is the one that needs no signature.
    channel.handle(async (message) => {
      if (message.type === 'plan') {
        arrived.push({ channel, ref: message.model });
        if (arrived.length === workers) send('ready');
      }
      return { type: 'ok' };
    });
  });
  on('go', async () => {
    await Promise.all(arrived.map(({ channel, ref }) => fetchBlob(channel, ref, hashingSink(ref.digest))));
    send('done', (performance.now() - startedAt) / 1000);
  });
  send('listening', listener.url);
  if (wire !== 'memory') return;
  const shelf = createBlobShelf();
  const ref = await shelf.addBytes(new Uint8Array(bytes), chunkBytes);
  for (let index = 0; index < workers; index++) {
    const near = createChannel(await memory.connect(listener.url));
    near.handle(async (message) => {
      if (message.type !== 'chunk') throw new Error(message.type);
      return shelf.answer(message);
    });
    await near.call(
      { type: 'plan', task: 'train', round: 1, model: ref, learningRate: 1, deadlineMs: null },
      'ok',
    );
  }
}

function hashingSink(digest: string): BlobSink {
  const hash = createHash('sha256');
  return {
    resumeAtChunk: 0,
    write: (chunk) => void hash.update(chunk),
    async finish() {
      if (hash.digest('hex') !== digest) throw new Error('the blob arrived damaged');
    },
  };
}

async function countNats(): Promise<void> {
  const connection = await connectNats({ servers: `127.0.0.1:${port}` });
  connection.subscribe('raw.*', { callback: (_, { data }) => count(data.byteLength) });
  await connection.flush();
  send('listening', '');
  send('ready');
}

function countSocketio(): void {
  const http = createServer();
  const io = new Server(http, { transports: ['websocket'], maxHttpBufferSize: 2 * chunkBytes });
  let joined = 0;
  io.on('connection', (socket) => {
    socket.on('chunk', (data: Uint8Array, acknowledge: () => void) => {
      acknowledge();
      count(data.byteLength);
    });
    joined += 1;
    if (joined === workers) send('ready');
  });
  http.listen(0, '127.0.0.1', () =>
    send('listening', `http://127.0.0.1:${(http.address() as AddressInfo).port}`),
  );
}

function count(more: number): void {
  received += more;
  if (received === bytes * workers) send('done', (performance.now() - startedAt) / 1000);
}
