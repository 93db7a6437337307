/**
 * Whether this machine could make its network bad by itself (network namespaces with `tc netem`), found out by trying.
 * Where it can't, the reason is printed, and the proxy is the network.
 */
import { spawnSync } from 'node:child_process';

/** Undefined when namespaces, pairs of interfaces and netem are to be had; else what is missing. */
export function missingForNetem(): string | undefined {
  const id = `trib${process.pid % 100_000}`;
  const steps: readonly (readonly [string, ...string[]])[] = [
    ['ip', 'netns', 'add', id],
    ['ip', 'link', 'add', `${id}a`, 'type', 'veth', 'peer', 'name', `${id}b`, 'netns', id],
    ['tc', 'qdisc', 'add', 'dev', `${id}a`, 'root', 'netem', 'delay', '1ms'],
  ];
  try {
    for (const [command, ...args] of steps) {
      const { status, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
      if (status === 0) continue;
      const said = error === undefined ? stderr.trim().split('\n', 1)[0] : error.message;
      return `${command} ${args.slice(0, 2).join(' ')}: ${said}`;
    }
    return undefined;
  } finally {
    // The pair of interfaces goes with it.
    spawnSync('ip', ['netns', 'del', id]);
  }
}
