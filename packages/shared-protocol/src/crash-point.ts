/**
 * Named points at which a test may kill this process, as a power cut would: no handlers run, nothing is flushed.
 * Set TRIBUTARY_CRASH_AT to `name` or `name#3` (the third time it is passed). Without the variable a call costs one
 * comparison. test/chaos lists every name.
 */

const [wanted, countText] = (process.env['TRIBUTARY_CRASH_AT'] ?? '').split('#');
let left = countText === undefined ? 1 : Number(countText);

/** Kills this process with SIGKILL when TRIBUTARY_CRASH_AT names `name` and its count is reached; else does nothing. */
export function crashPoint(name: string): void {
  if (!wanted || name !== wanted) return;
  left--;
  if (left === 0) process.kill(process.pid, 'SIGKILL');
}
