/** Adds lines to a file until there is no room, says so, and adds one more when it is told that there is. */
import { once } from 'node:events';
import { errorCode } from '@tributary/shared-protocol';
import { openSignedSums } from '../../src/agent/masking.ts';

const sums = openSignedSums(process.argv[2]!);
const entry = (round: number) => ({ at: 1, round, base: 'b'.repeat(64), survivors: ['a', 'b', 'c'] });

await once(process.stdin, 'data');
try {
  for (let round = 1; round < 1000; round++) sums.add(entry(round));
} catch (error) {
  process.stdout.write(errorCode(error) ?? String(error));
}
await once(process.stdin, 'data');
sums.add(entry(1000));
