/**
 * Expelling a site: one record in the log, from which all else follows. Its key and its name are let in no more, nor is
 * anybody by the invite that it came with, and what it sent for the round that is open does not count.
 */
import { existsSync, readFileSync } from 'node:fs';
import type { ResolvedFederation } from '../config/resolve.ts';
import { CoordinatorError } from '../errors.ts';
import { runPaths } from '../run/directory.ts';
import { takeLock } from '../run/lock.ts';
import { openRunLog } from '../run/log.ts';
import { type LogEntry, type RunState, replay } from '../run/records.ts';

export interface Revocation {
  readonly name: string;
  /** For the site and for the log. */
  readonly reason: string;
}

/**
 * The record that expels a site; undefined when it was expelled before.
 *
 * @throws CoordinatorError FED_MEMBER_UNKNOWN
 */
export function revocationOf(state: RunState, { name, reason }: Revocation): LogEntry | undefined {
  const member = memberOf(state, name);
  if (member.revoked) return undefined;
  const { clientId, key } = member;
  return { type: 'revoked', clientId, name, ...(key === undefined ? {} : { key }), reason };
}

/**
 * The member of that name.
 *
 * @throws CoordinatorError FED_MEMBER_UNKNOWN
 */
export function memberOf(state: RunState, name: string) {
  const member = state.members.get(name);
  if (member) return member;
  const known = [...state.members.keys()].sort().join(', ') || 'none';
  throw new CoordinatorError(
    'FED_MEMBER_UNKNOWN',
    `this run has no site "${name}"; those that have joined: ${known}`,
  );
}

/**
 * Expels a site of a run that no coordinator has open: it takes the run's lock, and appends to the log. Returns whether
 * there was anything to do.
 *
 * @throws CoordinatorError FED_MEMBER_UNKNOWN, FED_RUN_LOCKED, FED_RUN_LOG_BROKEN, FED_RUN_STORAGE
 */
export async function revokeOffline(runDir: string, revocation: Revocation): Promise<boolean> {
  const paths = runPaths(runDir);
  if (!existsSync(paths.log))
    throw new CoordinatorError('FED_MEMBER_UNKNOWN', `${runDir} has no log: nobody has joined this run yet`);
  const { digest } = JSON.parse(readFileSync(paths.federation, 'utf8')) as ResolvedFederation;
  const unlock = takeLock(paths.lock);
  try {
    const log = await openRunLog({
      path: paths.log,
      keyPath: paths.key,
      headPath: paths.head,
      config: digest,
    });
    try {
      const entry = revocationOf(replay(log.records), revocation);
      if (entry) log.append(entry, { durable: true });
      return entry !== undefined;
    } finally {
      log.close();
    }
  } finally {
    unlock();
  }
}
