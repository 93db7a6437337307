/** Who may take part: an invite's secret enrols a site's key once; afterwards holding that key is what counts. */
import { randomBytes } from 'node:crypto';
import {
  crashPoint,
  helloStatement,
  isSignedBy,
  type MessageOf,
  negotiate,
} from '@tributary/shared-protocol';
import { CoordinatorError } from '../errors.ts';
import type { LogEntry, MemberRecord, RunState } from '../run/records.ts';
import { matchesHash } from './secrets.ts';

/** A site's clock may differ from ours by this much. */
export const MAX_CLOCK_SKEW_MS = 5 * 60_000;

const NAME = /^[\p{L}\p{N}][\p{L}\p{N} ._-]{0,63}$/u;

export interface Admission {
  readonly member: MemberRecord;
  readonly rejoined: boolean;
}

/** The link that a hello came over. */
export interface HelloScope {
  readonly session: string;
  /** The certificate's that this coordinator shows; null without TLS. */
  readonly fingerprint: string | null;
}

/**
 * Admits the site that says `hello`, recording a first join durably before it returns.
 *
 * @throws CoordinatorError FED_JOIN_* or FED_INVITE_*; ProtocolError FED_PROTOCOL_VERSION
 */
export function admit(
  hello: MessageOf<'hello'>,
  scope: HelloScope,
  state: RunState,
  record: (entry: LogEntry) => void,
  now: () => number,
): Admission {
  checkHello(hello, now());
  if (!NAME.test(hello.name)) {
    throw new CoordinatorError(
      'FED_JOIN_NAME',
      `"${hello.name}" can't be a site's name: 1 to 64 letters, digits, spaces, dots, dashes or underscores, a letter or digit first`,
    );
  }
  const key = provenKey(hello, scope, state.runId);
  const known = state.members.get(hello.name);
  const expelled = [...state.members.values()].find((member) => member.revoked && hadKey(member, key));
  if (expelled?.revoked) throw revokedError(expelled.name, expelled.revoked.reason);
  if (known?.key === key) return { member: known, rejoined: true };
  if (hello.secret === undefined) {
    throw new CoordinatorError(
      known ? 'FED_JOIN_NAME_TAKEN' : 'FED_JOIN_CREDENTIAL',
      known
        ? nameTaken(known)
        : `this run has no site "${hello.name}" with that key; ask the lead for an invite`,
    );
  }
  const invite = checkInvite(hello.secret, state, now());
  if (known) throw new CoordinatorError('FED_JOIN_NAME_TAKEN', nameTaken(known));
  const holder = [...state.members.values()].find((member) => hadKey(member, key));
  if (holder) {
    throw new CoordinatorError(
      'FED_JOIN_KEY_TAKEN',
      `this key joined as "${holder.name}"; a site has one name and one key: use that name, or another state folder`,
    );
  }
  const joined = { clientId: randomBytes(8).toString('hex'), name: hello.name, key };
  record({ type: 'joined', ...joined, invite });
  crashPoint('coordinator:after-join-record');
  const member = state.members.get(hello.name);
  if (!member) throw new Error(`the record of "${hello.name}" was not taken into the state`);
  return { member, rejoined: false };
}

/** Whether that is the key of this member, or was. */
export function hadKey({ key, keyChanges }: MemberRecord, asked: string): boolean {
  return key === asked || keyChanges.some(({ former }) => former === asked);
}

/** Version and clock, asked of sites and of admins alike. */
export function checkHello(hello: MessageOf<'hello'>, now: number): void {
  negotiate(hello.protocol);
  const skew = hello.clockMs - now;
  if (!(Math.abs(skew) <= MAX_CLOCK_SKEW_MS)) {
    throw new CoordinatorError(
      'FED_JOIN_CLOCK',
      `the clocks differ by ${Math.round(Math.abs(skew) / 60_000)} minutes: the site says ${clock(hello.clockMs)}, the coordinator ${clock(now)}; set the one that is wrong (at most 5 minutes are allowed)`,
    );
  }
}

/** The key that the hello shows, once its signature proves that whoever says it holds it. */
function provenKey(hello: MessageOf<'hello'>, { session, fingerprint }: HelloScope, runId: string): string {
  const { publicKey, signature } = hello;
  if (publicKey === undefined || signature === undefined) {
    throw new CoordinatorError(
      'FED_JOIN_SIGNATURE',
      'a site shows its public key and signs its hello; this one did not',
    );
  }
  if (!isSignedBy(publicKey, helloStatement(hello, { runId, session }, fingerprint), signature)) {
    throw new CoordinatorError(
      'FED_JOIN_SIGNATURE',
      'the signature of the hello does not hold: it was made with another key, or for another run, link or certificate',
    );
  }
  return publicKey;
}

/** The hash of the invite that `secret` belongs to. Every invite is compared, whichever matches. */
function checkInvite(secret: string, state: RunState, now: number): string {
  let hash: string | undefined;
  for (const candidate of state.invites.keys()) {
    if (matchesHash(secret, candidate)) hash = candidate;
  }
  const invite = hash === undefined ? undefined : state.invites.get(hash);
  if (hash === undefined || !invite) {
    throw new CoordinatorError(
      'FED_INVITE_UNKNOWN',
      'this coordinator gave out no such invite; check that it was pasted whole and is for this run',
    );
  }
  if (invite.withdrawn) {
    throw new CoordinatorError(
      'FED_INVITE_WITHDRAWN',
      'a site that came with this invite was expelled, and it lets nobody in any more; ask the lead for another',
    );
  }
  if (invite.used >= invite.uses) {
    throw new CoordinatorError(
      'FED_INVITE_USED',
      `this invite was for ${invite.uses === 1 ? 'one site, which has' : `${invite.uses} sites, which have`} joined already; ask the lead for another`,
    );
  }
  if (now > invite.expiresAt) {
    throw new CoordinatorError(
      'FED_INVITE_EXPIRED',
      `this invite expired at ${clock(invite.expiresAt)}; ask the lead for another`,
    );
  }
  return hash;
}

/** What an expelled site is told, whatever it sends. */
export function revokedError(name: string, reason: string): CoordinatorError {
  return new CoordinatorError('FED_JOIN_REVOKED', `the lead has expelled "${name}" from this run: ${reason}`);
}

function nameTaken({ name, revoked }: MemberRecord): string {
  if (revoked) return `"${name}" was the name of a site that was expelled; choose another name`;
  return `another site is called "${name}" already; choose another name. If it is this site, its key is in its state folder`;
}

function clock(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? String(ms) : date.toISOString();
}
