/** `npm run bench -- NAME`: measures on this machine, beside a yardstick in the same run. No figure decides a test. */
const benches: Record<string, () => Promise<{ bench: (args: string[]) => Promise<void> }>> = {
  round: () => import('./round.ts'),
  transport: () => import('./transfer.ts'),
  memory: () => import('./memory.ts'),
  'local-training': () => import('./local-training.ts'),
  heartbeats: () => import('./heartbeats.ts'),
  pipeline: () => import('./pipeline.ts'),
  'dp-sgd': () => import('./dp-sgd.ts'),
  secagg: () => import('./secagg.ts'),
  'dp-sgd-digits': () => import('./dp-sgd-digits.ts'),
};

const [name, ...args] = process.argv.slice(2);
const load = name === undefined ? undefined : benches[name];
if (load === undefined) {
  console.error(`Usage: npm run bench -- ${Object.keys(benches).join(' | ')} [options]`);
  process.exit(2);
}
const { bench } = await load();
await bench(args);
process.exit(0);
