import { describe, expect, it } from 'vitest';
import { crashOf, readOomKills } from '../../src/trainer/exit-cause.ts';

/** A machine that has these files and no other. */
function machine(files: Record<string, string>) {
  return (path: string) => {
    if (Object.hasOwn(files, path)) return files[path]!;
    throw new Error(`ENOENT: ${path}`);
  };
}

const KILLED = { code: null, signal: 'SIGKILL' } as const;
const NONE = { ofGroup: undefined, ofSystem: undefined };

describe('readOomKills', () => {
  it('reads memory.events of the own group in version 2', () => {
    const read = machine({
      '/proc/self/cgroup': '0::/user.slice/job\n',
      '/sys/fs/cgroup/user.slice/job/memory.events': 'low 0\nmax 5\noom 2\noom_kill 3\noom_group_kill 0\n',
      '/proc/vmstat': 'nr_free_pages 1\noom_kill 9\n',
    });
    expect(readOomKills(read)).toEqual({ ofGroup: 3, ofSystem: 9 });
  });

  it('reads memory.oom_control in version 1, and prefers it where both are mounted', () => {
    const read = machine({
      '/proc/self/cgroup': '0::/\n4:memory:/job\n1:cpu,cpuacct:/job\n',
      '/sys/fs/cgroup/memory/job/memory.oom_control': 'oom_kill_disable 0\nunder_oom 0\noom_kill 2\n',
      '/sys/fs/cgroup/memory.events': 'oom_kill 7\n',
    });
    expect(readOomKills(read)).toEqual({ ofGroup: 2, ofSystem: undefined });
  });

  it('finds the group at the root of what a container sees', () => {
    const read = machine({
      '/proc/self/cgroup': '0::/system.slice/container-1\n',
      '/sys/fs/cgroup/memory.events': 'oom_kill 1\n',
    });
    expect(readOomKills(read).ofGroup).toBe(1);
  });

  it('says that it does not know where there is nothing to read', () => {
    expect(readOomKills(machine({}))).toEqual(NONE);
  });
});

describe('crashOf', () => {
  const before = { ofGroup: 2, ofSystem: 5 };

  it('SIGKILL with a risen count of the own group is the kernel, for want of memory', () => {
    const error = crashOf('training round 3', KILLED, [], before, { ofGroup: 3, ofSystem: 6 });
    expect(error).toMatchObject({ code: 'FED_TRAINER_OUT_OF_MEMORY' });
    expect(error.message).toMatch(/kernel killed .* want of memory .* training round 3/);
  });

  it('SIGKILL with the count as it was came from outside, whoever else ran out of memory', () => {
    const error = crashOf('training round 3', KILLED, [], before, { ofGroup: 2, ofSystem: 6 });
    expect(error).toMatchObject({ code: 'FED_TRAINER_CRASHED' });
    expect(error.message).toMatch(/SIGKILL during training round 3.*killed from outside/);
  });

  it('without a count of the own group the system’s decides; without any it says so', () => {
    const system = (ofSystem: number) => ({ ofGroup: undefined, ofSystem });
    expect(crashOf('x', KILLED, [], system(1), system(2)).code).toBe('FED_TRAINER_OUT_OF_MEMORY');
    expect(crashOf('x', KILLED, [], system(1), system(1)).code).toBe('FED_TRAINER_CRASHED');
    expect(crashOf('x', KILLED, [], NONE, NONE).message).toContain('this system does not say');
  });

  it('a full JavaScript heap is want of memory too', () => {
    const words = ['FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory'];
    const error = crashOf('x', { code: null, signal: 'SIGABRT' }, words, before, before);
    expect(error.code).toBe('FED_TRAINER_OUT_OF_MEMORY');
    expect(error.message).toContain(words[0]);
  });

  it('any other end is a crash, with its last words', () => {
    const error = crashOf('its set-up', { code: 1, signal: null }, ['boom'], before, before);
    expect(error).toMatchObject({
      code: 'FED_TRAINER_CRASHED',
      message: 'The trainer process ended with exit code 1 during its set-up. Its last words:\nboom',
    });
  });
});
