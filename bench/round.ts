/**
 * Seconds a round and the coordinator's peak memory with workers that train nothing, beside a raw transfer of the same
 * bytes over the same links. A round runs from its start to its commit, checkpoint on disk. The first round of each
 * run is left out: connections and the compiler warm up in it.
 */
import { parseArgs } from 'node:util';
import { median } from './median.ts';
import { withUpdateFile } from './model.ts';
import { startParty } from './processes.ts';

interface Case {
  readonly params: number;
  readonly workers: number;
  readonly tls: boolean;
}

/** Flower 1.26's direct path on a machine like this one, seconds and MiB (median); for scale only. */
const FLOWER: Readonly<Record<string, readonly [seconds: number, mebibytes: number]>> = {
  '10000/2': [0.0041, 101],
  '10000/8': [0.0147, 105],
  '1000000/2': [0.04, 218],
  '1000000/8': [0.202, 477],
  '10000000/2': [0.884, 687],
  '10000000/8': [3.2, 1934],
};

export async function bench(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      params: { type: 'string', default: '10000,1000000,10000000' },
      workers: { type: 'string', default: '2,8' },
      tls: { type: 'string', default: 'off,on' },
      rounds: { type: 'string', default: '7' },
    },
  });
  const rounds = Number(values.rounds);
  console.log(`A round with no-op workers, every party its own process; median of ${rounds - 1} rounds\n`);
  console.log('parameters  workers  TLS   round s   raw s    ratio   peak MiB   Flower 1.26 direct: s, MiB');
  for (const params of numbers(values.params)) {
    for (const workers of numbers(values.workers)) {
      for (const tls of values.tls.split(',').map((text) => text === 'on')) {
        const one = { params, workers, tls };
        const raw = await rawTransfer(one, rounds);
        const ours = await withUpdateFile(params, (updateFile) => federatedRound(one, rounds, updateFile));
        const flower = FLOWER[`${params}/${workers}`];
        console.log(
          [
            String(params).padStart(10),
            String(workers).padStart(7),
            (tls ? 'on' : 'off').padStart(4),
            ours.seconds.toFixed(4).padStart(9),
            raw.toFixed(4).padStart(8),
            (ours.seconds / raw).toFixed(2).padStart(7),
            ours.peakMiB.toFixed(0).padStart(9),
            flower === undefined ? '' : `   ${flower[0]}, ${flower[1]}`,
          ].join('  '),
        );
      }
    }
  }
}

async function federatedRound(
  one: Case,
  rounds: number,
  updateFile: string,
): Promise<{ seconds: number; peakMiB: number }> {
  const coordinator = await startParty('coordinator-process', { ...one, rounds });
  const invite = await coordinator.next('invite');
  const workers = await Promise.all(
    Array.from({ length: one.workers }, (_, i) =>
      startParty('noop-worker', { invite, name: `site-${i}`, updateFile, tls: one.tls }),
    ),
  );
  const seconds: number[] = [];
  while (seconds.length < rounds) seconds.push(await coordinator.next<number>('round'));
  const peakMiB = await coordinator.next<number>('peak');
  for (const worker of workers) await worker.stop();
  coordinator.send('cleanup');
  await coordinator.next('cleaned');
  await coordinator.stop();
  return { seconds: median(seconds.slice(1)), peakMiB };
}

async function rawTransfer(one: Case, rounds: number): Promise<number> {
  const setup = { bytes: one.params * 4, workers: one.workers, tls: one.tls };
  const server = await startParty('raw-server', setup);
  const { url, fingerprint } = await server.next<{ url: string; fingerprint?: string }>('listening');
  const clients = await Promise.all(
    Array.from({ length: one.workers }, () => startParty('raw-client', { ...setup, url, fingerprint })),
  );
  await server.next('ready');
  const seconds: number[] = [];
  while (seconds.length < rounds) {
    server.send('go');
    seconds.push(await server.next<number>('round'));
  }
  for (const client of clients) await client.stop();
  await server.stop();
  return median(seconds.slice(1));
}

function numbers(text: string): number[] {
  return text.split(',').map(Number);
}
