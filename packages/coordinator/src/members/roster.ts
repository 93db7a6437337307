/** The sites of a run as they are now: linked or not, ready or not, last seen when. */
import type { Channel, SiteReport } from '@tributary/shared-protocol';
import type { MemberRecord } from '../run/records.ts';

export interface Member {
  readonly clientId: string;
  readonly name: string;
  /** Undefined while the site has no link. */
  channel: Channel | undefined;
  /** That link's, which its signatures are bound to. */
  session: string;
  /** Minor of the protocol's version that is spoken on it. */
  minor: number;
  /** Its data is prepared and plans are welcome; false again when its link is lost. */
  ready: boolean;
  site: SiteReport | undefined;
  state: string;
  /** In [0, 1]. */
  progress: number;
  lastSeenAt: number;
  /** Since when it has no link; -Infinity when it left on purpose. */
  lostAt: number;
}

export interface Roster {
  readonly members: ReadonlyMap<string, Member>;
  /** The member of that record, made when it is new. */
  enlist(record: MemberRecord): Member;
  /** Names of the sites that are ready, sorted. */
  ready(): string[];
  /** Calls `listener` after each change in who is here or ready; returns the function that ends that. */
  onChange(listener: (member: Member) => void): () => void;
  changed(member: Member): void;
}

export function createRoster(now: () => number): Roster {
  const members = new Map<string, Member>();
  const listeners = new Set<(member: Member) => void>();
  return {
    members,
    enlist({ clientId, name }) {
      const known = members.get(name);
      if (known) return known;
      const member: Member = {
        clientId,
        name,
        channel: undefined,
        session: '',
        minor: 0,
        ready: false,
        site: undefined,
        state: 'away',
        progress: 0,
        lastSeenAt: 0,
        lostAt: now(),
      };
      members.set(name, member);
      return member;
    },
    ready: () =>
      [...members.values()]
        .filter((m) => m.ready)
        .map((m) => m.name)
        .sort(),
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    changed(member) {
      for (const listener of [...listeners]) listener(member);
    },
  };
}
