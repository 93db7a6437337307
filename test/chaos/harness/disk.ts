/**
 * A folder whose disk can be made full and given room again. Where mounting is permitted it is a small file system of
 * its own (tmpfs), and full means ENOSPC. Elsewhere the processes that write there get a limit on the size of a file
 * (RLIMIT_FSIZE), and full means EFBIG: the same refusal by the system, with another number.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export type DiskKind = 'tmpfs' | 'file size limit' | 'none';

export interface Disk {
  /** Leaves `slackBytes` (in whole pages). */
  fill(slackBytes: number): void;
  free(): void;
  /** To be called for each process that writes there, as it starts. */
  adopt(pid: number): void;
  /** Takes the disk away; `keep` leaves its files in the folder. */
  close(options?: { readonly keep?: boolean }): void;
}

const ROOMY = '256m';

/** What can be had here, found out by trying. */
export function findDiskKind(): { readonly kind: DiskKind; readonly reason: string } {
  const dir = mkdtempSync(join(tmpdir(), 'tributary-disk-'));
  try {
    const mounted = run('mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', dir);
    if (mounted === undefined) {
      run('umount', '-l', dir);
      return { kind: 'tmpfs', reason: 'small file systems of their own' };
    }
    const limited = run('prlimit', '--pid', String(process.pid), '--fsize');
    if (limited === undefined) return { kind: 'file size limit', reason: `no mount here (${mounted})` };
    return { kind: 'none', reason: `neither mount (${mounted}) nor prlimit (${limited}) here` };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Makes `folder` a disk. With `none` a full disk is not to be had, and `fill` throws. */
export function openDisk(folder: string, kind: DiskKind): Disk {
  mkdirSync(folder, { recursive: true });
  return kind === 'tmpfs' ? tmpfsDisk(folder) : limitDisk(kind);
}

const mounts = new Set<string>();
process.on('exit', () => {
  for (const folder of mounts) run('umount', '-l', folder);
});

function tmpfsDisk(folder: string): Disk {
  must('mount', '-t', 'tmpfs', '-o', `size=${ROOMY}`, 'tmpfs', folder);
  mounts.add(folder);
  return {
    fill(slackBytes) {
      // What is used may grow while we look; a smaller size than that is refused.
      for (let extra = 0; ; extra += 64 * 1024) {
        const { blocks, bfree, bsize } = statfsSync(folder);
        const size = (blocks - bfree) * bsize + slackBytes + extra;
        const refusal = run('mount', '-o', `remount,size=${Math.max(size, bsize)}`, folder);
        if (refusal === undefined) return;
        if (extra > 4 * 1024 * 1024) throw new Error(`${folder} can't be made full: ${refusal}`);
      }
    },
    free: () => must('mount', '-o', `remount,size=${ROOMY}`, folder),
    adopt() {},
    close({ keep = false } = {}) {
      const copy = `${folder}.copy`;
      if (keep) cpSync(folder, copy, { recursive: true });
      must('umount', '-l', folder);
      mounts.delete(folder);
      if (!keep) return;
      cpSync(copy, folder, { recursive: true });
      rmSync(copy, { recursive: true, force: true });
    },
  };
}

function limitDisk(kind: DiskKind): Disk {
  const pids = new Set<number>();
  let limit = 'unlimited';
  // A process that has just ended can't be limited, and needn't be.
  const apply = (pid: number) => run('prlimit', '--pid', String(pid), `--fsize=${limit}:unlimited`);
  return {
    fill(slackBytes) {
      if (kind === 'none') throw new Error('no disk can be made full here');
      limit = String(slackBytes);
      for (const pid of pids) apply(pid);
    },
    free() {
      limit = 'unlimited';
      for (const pid of pids) apply(pid);
    },
    adopt(pid) {
      pids.add(pid);
      if (limit !== 'unlimited') apply(pid);
    },
    close() {},
  };
}

/** Undefined when the command went well, else what it said. */
function run(command: string, ...args: string[]): string | undefined {
  const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  if (status === 0) return undefined;
  return (error?.message ?? stderr.trim()) || `${command} ended with ${status}`;
}

function must(command: string, ...args: string[]): void {
  const refusal = run(command, ...args);
  if (refusal !== undefined) throw new Error(`${command} ${args.join(' ')}: ${refusal}`);
}
