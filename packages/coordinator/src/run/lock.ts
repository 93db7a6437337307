/** One coordinator a run directory: a file with the process id, taken over when that process is gone. */
import { closeSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { CoordinatorError } from '../errors.ts';

interface Holder {
  readonly pid: number;
  /** The kernel's start time of that process, where it tells: a process id alone may have been given away anew. */
  readonly started: string | undefined;
}

/**
 * Takes the lock and returns the function that gives it back.
 *
 * @throws CoordinatorError FED_RUN_LOCKED naming the process that holds it
 */
export function takeLock(path: string): () => void {
  const own: Holder = { pid: process.pid, started: startOf(process.pid) };
  for (let attempt = 0; ; attempt++) {
    try {
      const fd = openSync(path, 'wx');
      try {
        writeSync(fd, JSON.stringify(own));
      } finally {
        closeSync(fd);
      }
      return () => rmSync(path, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const holder = readHolder(path);
    if (holder && isAlive(holder)) {
      throw new CoordinatorError(
        'FED_RUN_LOCKED',
        `another coordinator (process ${holder.pid}) has this run open (${path}); stop it first, or choose another runDir`,
      );
    }
    rmSync(path, { force: true });
    if (attempt > 5) throw new CoordinatorError('FED_RUN_LOCKED', `${path} can't be taken`);
  }
}

function readHolder(path: string): Holder | undefined {
  try {
    const holder = JSON.parse(readFileSync(path, 'utf8')) as Partial<Holder>;
    return typeof holder.pid === 'number' ? { pid: holder.pid, started: holder.started } : undefined;
  } catch {
    // Empty or torn: the process died while it took the lock.
    return undefined;
  }
}

function isAlive({ pid, started }: Holder): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false;
  }
  const now = startOf(pid);
  return started === undefined || now === undefined || now === started;
}

/** Field 22 of /proc/PID/stat (clock ticks since boot); the command in field 2 may hold spaces and brackets. */
function startOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}
