/**
 * A worker that trains nothing: it fetches the global model, keeps none of it, and offers an update that it has ready
 * in memory, as the raw client has its bytes.
 */
import { readFileSync } from 'node:fs';
import {
  type BlobSink,
  challengeCoordinator,
  createBlobShelf,
  createChannel,
  createSigningKey,
  fetchBlob,
  type MessageOf,
  sayHello,
} from '@tributary/shared-protocol';
import { party } from './party.ts';
import { createTransport } from './transport.ts';

const { setup } = party<{
  invite: { url: string; fingerprint?: string; secret: string };
  name: string;
  updateFile: string;
  tls: boolean;
}>();

const transport = await createTransport(setup.tls);
const pin = setup.invite.fingerprint === undefined ? {} : { fingerprint: setup.invite.fingerprint };
const link = await transport.connect(setup.invite.url, pin);
const channel = createChannel(link);
const shelf = createBlobShelf();
const update = await shelf.addBytes(readFileSync(setup.updateFile), link.preferredChunkBytes);
const discard: BlobSink = { resumeAtChunk: 0, write() {}, async finish() {} };

channel.handle(async (message) => {
  if (message.type === 'chunk') return shelf.answer(message);
  if (message.type === 'plan') void work(message);
  return { type: 'ok' };
});
await sayHello(channel, await challengeCoordinator(channel, pin), {
  key: createSigningKey(),
  software: 'bench',
  name: setup.name,
  secret: setup.invite.secret,
  now: Date.now,
});
await channel.call(
  {
    type: 'ready',
    site: {
      trainExamples: 100,
      testExamples: 0,
      trainExamplesByClass: [100, 0],
      unreadable: 0,
      engine: 'none',
    },
  },
  'ok',
);

async function work(plan: MessageOf<'plan'>): Promise<void> {
  await fetchBlob(channel, plan.model, discard);
  await channel.call(
    { type: 'offer', round: plan.round, base: plan.model.digest, numExamples: 100, metrics: {}, update },
    'receipt',
  );
}
