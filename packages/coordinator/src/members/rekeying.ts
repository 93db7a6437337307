/** A site's change of key: signed with the key that it had, confirmed by the new one, and kept with both in the log. */
import { isSignedBy, type MessageOf, rekeyStatement } from '@tributary/shared-protocol';
import { CoordinatorError } from '../errors.ts';
import type { LogEntry, RunState } from '../run/records.ts';
import { hadKey } from './admission.ts';

/**
 * The record that gives a site its new key; undefined when it has that already. The message's own proof was checked.
 *
 * @throws CoordinatorError FED_JOIN_KEY_TAKEN, FED_JOIN_SIGNATURE
 */
export function rekeyingOf(
  state: RunState,
  name: string,
  session: string,
  { publicKey: next, confirmation, signed }: MessageOf<'rekey'>,
): LogEntry | undefined {
  const member = state.members.get(name);
  const former = member?.key;
  if (member === undefined || former === undefined || former === next) return undefined;
  const holder = [...state.members.values()].find((other) => hadKey(other, next));
  if (holder)
    throw new CoordinatorError(
      'FED_JOIN_KEY_TAKEN',
      `the new key is, or was, that of "${holder.name}"; a key is never used twice: make another`,
    );
  const statement = rekeyStatement({ runId: state.runId, session }, { name, former, next });
  if (!isSignedBy(next, statement, confirmation))
    throw new CoordinatorError(
      'FED_JOIN_SIGNATURE',
      'the new key has not signed that it takes the place of the former one',
    );
  const proof = { session, ...signed, confirmation };
  return { type: 'rekeyed', clientId: member.clientId, name, key: next, former, proof };
}
