/**
 * The coordinator's peak memory with a model of 25 million parameters and 2, 8 and 32 workers. Updates are folded into
 * one exact sum as they arrive, so it should not depend on how many
 * workers there are.
 */
import { parseArgs } from 'node:util';
import { withUpdateFile } from './model.ts';
import { startParty } from './processes.ts';

export async function bench(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      params: { type: 'string', default: '25000000' },
      workers: { type: 'string', default: '2,8,32' },
      rounds: { type: 'string', default: '2' },
    },
  });
  const params = Number(values.params);
  const rounds = Number(values.rounds);
  console.log(
    `The coordinator's peak memory, ${params} parameters (${((params * 4) / 2 ** 20).toFixed(0)} MiB), ${rounds} rounds\n`,
  );
  console.log('workers   peak MiB   against the first');
  let first: number | undefined;
  for (const workers of values.workers.split(',').map(Number)) {
    const peak = await withUpdateFile(params, (updateFile) => peakMiB(params, workers, rounds, updateFile));
    first ??= peak;
    const growth = 100 * (peak / first - 1);
    console.log(
      `${String(workers).padStart(7)}   ${peak.toFixed(0).padStart(8)}   ${growth >= 0 ? '+' : ''}${growth.toFixed(1)} %`,
    );
  }
}

async function peakMiB(params: number, workers: number, rounds: number, updateFile: string): Promise<number> {
  const coordinator = await startParty('coordinator-process', { params, workers, rounds, tls: false });
  const invite = await coordinator.next('invite');
  const parties = await Promise.all(
    Array.from({ length: workers }, (_, i) =>
      startParty('noop-worker', { invite, name: `site-${i}`, updateFile, tls: false }),
    ),
  );
  const peak = await coordinator.next<number>('peak');
  for (const worker of parties) await worker.stop();
  coordinator.send('cleanup');
  await coordinator.next('cleaned');
  await coordinator.stop();
  return peak;
}
