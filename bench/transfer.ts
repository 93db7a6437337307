/**
 * Megabytes a second of blobs from one and from eight workers to a coordinator, over each transport, beside the same
 * client's plainest way of moving as much in chunks of the same size: NATS publish and subscribe, socket.io's emit with
 * acknowledgements. Ours is hashed and checked on arrival; the raw bytes are only counted.
 */
import { parseArgs } from 'node:util';
import { natsServerMissing, startNatsServer } from '@tributary/testkit/nats-server';
import { median } from './median.ts';
import { type Party, startParty } from './processes.ts';

const WIRES = ['memory', 'socketio', 'raw socketio', 'nats', 'raw nats'] as const;
export type Wire = (typeof WIRES)[number];

export interface TransferSetup {
  readonly wire: Wire;
  readonly workers: number;
  readonly bytes: number;
  readonly chunkBytes: number;
  /** Of the NATS server. */
  readonly port: number;
  /** Of a worker. */
  readonly index: number;
  readonly url?: string;
}

export async function bench(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      megabytes: { type: 'string', default: '100' },
      workers: { type: 'string', default: '1,8' },
      wires: { type: 'string', default: 'memory,socketio,nats' },
      turns: { type: 'string', default: '5' },
      'chunk-bytes': { type: 'string', default: '1000000' },
    },
  });
  const [bytes, turns] = [Number(values.megabytes) * 1e6, Number(values.turns)];
  const wires = values.wires.split(',');
  const chunkBytes = Number(values['chunk-bytes']);
  const missing = natsServerMissing();
  if (missing !== undefined) console.log(`Without NATS: ${missing}.\n`);
  // A subscriber that is slower than eight publishers must not be cut off in the middle of a measurement.
  const server = missing === undefined ? await startNatsServer({ config: 'max_pending: 2GB' }) : undefined;
  console.log(
    `${values.megabytes} MB a worker in chunks of ${chunkBytes} bytes, every party its own process (memory: one for all); median MB/s of ${turns} turns, of which the first is left out\n`,
  );
  console.log('workers  transport     ours     raw   ours/raw');
  try {
    for (const workers of values.workers.split(',').map(Number)) {
      const speeds: Partial<Record<Wire, number>> = {};
      for (const wire of WIRES) {
        if (!wires.includes(wire.replace('raw ', ''))) continue;
        if (wire.includes('nats') && server === undefined) continue;
        const setup = { wire, workers, bytes, chunkBytes, port: server?.port ?? 0, index: 0 };
        speeds[wire] = await transfer(setup, turns);
      }
      for (const wire of ['memory', 'socketio', 'nats'] as const) {
        const [ours, raw] = [speeds[wire], speeds[`raw ${wire}` as Wire]];
        if (ours === undefined) continue;
        const beside =
          raw === undefined ? '' : `${raw.toFixed(0).padStart(8)}   ${(ours / raw).toFixed(2).padStart(8)}`;
        console.log(
          `${String(workers).padStart(7)}  ${wire.padEnd(9)}${ours.toFixed(0).padStart(9)}${beside}`,
        );
      }
    }
  } finally {
    await server?.stop();
  }
}

/** MB/s of one way over all workers together. */
async function transfer(setup: TransferSetup, turns: number): Promise<number> {
  const receiver = await startParty('transfer-receiver', setup);
  const url = await receiver.next<string>('listening');
  const senders: Party[] = [];
  // In memory, the receiver is its own senders.
  for (let index = 0; setup.wire !== 'memory' && index < setup.workers; index++) {
    const sender = await startParty('transfer-sender', { ...setup, index, url });
    senders.push(sender);
    await sender.next('ready');
  }
  await receiver.next('ready');
  const seconds: number[] = [];
  for (let turn = 0; turn < turns; turn++) {
    const done = receiver.next<number>('done');
    receiver.send('go');
    await receiver.next('going');
    for (const sender of senders) sender.send('go');
    seconds.push(await done);
  }
  for (const party of [...senders, receiver]) await party.stop();
  return (setup.bytes * setup.workers) / 1e6 / median(seconds.slice(1));
}
