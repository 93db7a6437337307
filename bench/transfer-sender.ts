/** One worker of `bench -- transport`: serves its blob, or, as the yardstick, sends as many bytes as it is told to. */
import { connect as connectNats } from '@nats-io/transport-node';
import { createBlobShelf, createChannel, expectLargeBuffers } from '@tributary/shared-protocol';
import { createNatsTransport } from '@tributary/shared-protocol/nats';
import { createSocketioTransport } from '@tributary/shared-protocol/socketio';
import { io } from 'socket.io-client';
import { party } from './party.ts';
import type { TransferSetup } from './transfer.ts';

const { setup, send, on } = party<TransferSetup>();
const { wire, bytes, chunkBytes, port, url = '', index } = setup;
const payload = new Uint8Array(bytes).fill(index + 1);
/** Chunks on their way at a time, as our blobs have. */
const WINDOW = 8;

if (wire === 'raw nats') {
  const connection = await connectNats({ servers: `127.0.0.1:${port}` });
  on('go', async () => {
    for (const [i, chunk] of chunks().entries()) {
      connection.publish(`raw.${index}`, chunk);
      if (i % WINDOW === WINDOW - 1) await connection.flush();
    }
    await connection.flush();
  });
} else if (wire === 'raw socketio') {
  const socket = io(url, { transports: ['websocket'] });
  await new Promise<void>((resolve) => socket.once('connect', resolve));
  on('go', async () => {
    const queue = chunks().values();
    const lane = async (): Promise<void> => {
      for (const chunk of queue) await socket.emitWithAck('chunk', chunk);
    };
    await Promise.all(Array.from({ length: WINDOW }, lane));
  });
} else {
  expectLargeBuffers(); // as `tributary` does
  const transport = wire === 'nats' ? createNatsTransport() : createSocketioTransport();
  const shelf = createBlobShelf();
  const update = await shelf.addBytes(payload, chunkBytes);
  const channel = createChannel(await transport.connect(url));
  channel.handle(async (message) => {
    if (message.type !== 'chunk') throw new Error(message.type);
    return shelf.answer(message);
  });
  await channel.call(
    { type: 'plan', task: 'train', round: 1, model: update, learningRate: 1, deadlineMs: null },
    'ok',
  );
}
send('ready');

function chunks(): Uint8Array[] {
  return Array.from({ length: Math.ceil(bytes / chunkBytes) }, (_, i) =>
    payload.subarray(i * chunkBytes, (i + 1) * chunkBytes),
  );
}
