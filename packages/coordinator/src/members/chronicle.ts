/**
 * What each site is told of the log: the records that concern it, as the lines that they are. A site keeps them, so
 * that a log which later tells something else is found out. Only what is on the disk is told: a line that a power cut
 * takes back must not live on at a site.
 */
import type { LogRecord } from '../run/log.ts';

export interface Told {
  readonly seq: number;
  readonly line: string;
}

export interface Chronicle {
  /** Takes in a record that was appended; `durable` when it, and so all before it, is on the disk. */
  add(record: LogRecord, durable: boolean): void;
  /** Lines that concern `name`, are on the disk and have a number above `after`, at most about `maxBytes` of them. */
  linesFor(name: string, after: number, maxBytes: number): Told[];
  /** Calls `listener` whenever there may be more to tell. */
  onGrowth(listener: () => void): void;
}

/** `records` are those that were in the log when it was opened. */
export function createChronicle(records: readonly LogRecord[]): Chronicle {
  const common: Told[] = [];
  const bySite = new Map<string, Told[]>();
  let durableSeq = -1;
  let grown: () => void = () => {};

  function ofSite(name: string): Told[] {
    const list = bySite.get(name) ?? [];
    bySite.set(name, list);
    return list;
  }

  function keep(record: LogRecord): void {
    const told = { seq: record.seq, line: JSON.stringify(record) };
    switch (record.type) {
      case 'run-started':
      case 'noised':
      case 'survivors':
      case 'committed':
      case 'finished':
        common.push(told);
        break;
      case 'joined':
      case 'rekeyed':
      case 'revoked':
      case 'update-accepted':
        ofSite(record.name).push(told);
        break;
      default:
    }
  }

  for (const record of records) keep(record);
  durableSeq = records.at(-1)?.seq ?? -1;

  return {
    add(record, durable) {
      keep(record);
      if (!durable) return;
      durableSeq = record.seq;
      grown();
    },
    linesFor(name, after, maxBytes) {
      const due = [...since(common, after), ...since(bySite.get(name) ?? [], after)]
        .filter(({ seq }) => seq <= durableSeq)
        .sort((a, b) => a.seq - b.seq);
      let bytes = 0;
      return due.filter(({ line }, i) => {
        bytes += line.length;
        return i === 0 || bytes <= maxBytes;
      });
    },
    onGrowth(listener) {
      grown = listener;
    },
  };
}

/** Those at the end with a number above `after`; the list is in order. */
function since(list: readonly Told[], after: number): readonly Told[] {
  let from = list.length;
  while (from > 0 && list[from - 1]!.seq > after) from--;
  return list.slice(from);
}
