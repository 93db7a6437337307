/**
 * One agent a state folder. The lock is a numbered file, `lock.7`, that names its process; the highest number counts.
 * Taking over from a process that was killed is making the next number, which the file system lets one contender do;
 * so a killed agent needs no cleaning up after, and two agents never both believe that they took over.
 */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { link, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { WorkerError } from '../errors.ts';
import { readText } from './atomic-file.ts';

export interface Lock {
  release(): Promise<void>;
}

interface Owner {
  readonly pid: number;
  /** When the process began, as the system tells it: tells apart a number that was given to another process since. */
  readonly born: string;
  readonly token: string;
}

/** Locks held by this very process: a file with our own number in it is otherwise left by a former life. */
const held = new Set<string>();

/** Holds `directory`, or throws FED_WORKER_STATE_LOCKED naming the process that does. */
export async function acquireLock(directory: string): Promise<Lock> {
  const owner: Owner = { pid: process.pid, born: bornOf(process.pid), token: randomUUID() };
  const draft = join(directory, `lock-draft.${owner.token}`);
  held.add(owner.token);
  try {
    for (;;) {
      const top = (await generations(directory)).at(-1) ?? 0;
      const text = top === 0 ? undefined : await readText(join(directory, `lock.${top}`));
      const other = text === undefined ? undefined : parseOwner(text);
      if (other !== undefined && isAlive(other)) throw lockedBy(directory, other);

      const path = join(directory, `lock.${top + 1}`);
      try {
        await writeFile(draft, JSON.stringify(owner), { mode: 0o600 });
        await link(draft, path); // there whole, or EEXIST
      } catch (error) {
        // EEXIST: another was quicker. ENOENT: one who swept took the draft for a dead one's.
        if (['EEXIST', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) continue;
        throw error;
      } finally {
        await rm(draft, { force: true });
      }
      // A contender that looked long ago may have made a number that has come and gone: the highest one counts.
      const now = await generations(directory);
      if (now.at(-1) !== top + 1) {
        await rm(path, { force: true });
        continue;
      }
      for (const older of now.slice(0, -1)) await rm(join(directory, `lock.${older}`), { force: true });
      await sweepDrafts(directory);
      return { release: () => release(path, draft, owner.token) };
    }
  } catch (error) {
    held.delete(owner.token);
    throw error;
  }
}

/** Leaves the file behind with nobody's name in it, so that the numbers never go backwards. */
async function release(path: string, draft: string, token: string): Promise<void> {
  if (!held.delete(token)) return;
  try {
    await writeFile(draft, '{}', { mode: 0o600 });
    await rename(draft, path);
  } catch {
    // No room for two bytes. The lock keeps our name and counts as free: we no longer hold it, and soon are gone.
    await rm(draft, { force: true });
  }
}

/** Removes the drafts of agents that were killed, or had no room, in the middle of taking the lock. */
async function sweepDrafts(directory: string): Promise<void> {
  for (const file of await readdir(directory)) {
    if (!file.startsWith('lock-draft.')) continue;
    const owner = parseOwner((await readText(join(directory, file))) ?? '');
    if (owner === undefined || !isAlive(owner)) await rm(join(directory, file), { force: true });
  }
}

async function generations(directory: string): Promise<number[]> {
  const found = (await readdir(directory)).map((file) => /^lock\.(\d+)$/.exec(file)?.[1]);
  return found
    .filter((number) => number !== undefined)
    .map(Number)
    .sort((a, b) => a - b);
}

function isAlive(owner: Owner): boolean {
  if (owner.pid === process.pid) return held.has(owner.token);
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  const born = bornOf(owner.pid);
  return born === '' || owner.born === '' || born === owner.born;
}

/** Start time in clock ticks since boot (field 22 of /proc/PID/stat); empty where the system has no such file. */
function bornOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? 'dead, not yet reaped' : (fields[19] ?? '');
  } catch {
    return '';
  }
}

function parseOwner(text: string): Owner | undefined {
  try {
    const owner = JSON.parse(text) as Partial<Owner>;
    if (typeof owner.pid !== 'number' || typeof owner.token !== 'string') return undefined;
    return { pid: owner.pid, born: String(owner.born ?? ''), token: owner.token };
  } catch {
    return undefined;
  }
}

function lockedBy(directory: string, owner: Owner): WorkerError {
  return new WorkerError(
    'FED_WORKER_STATE_LOCKED',
    `another agent (process ${owner.pid}) is using the state folder ${directory}; stop it, or join under another name`,
  );
}
