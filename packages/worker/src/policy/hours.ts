/**
 * Hours in which training is allowed, by the clock on the wall: "20:00-06:00" begins on the days named and may reach
 * into the next. Boundaries are made as local dates, so that a day of 23 or 25 hours has the hours that it shows.
 */

export const DAY_NAMES = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'] as const;

export interface Times {
  /** Minutes since midnight, in [0, 1440). */
  readonly from: number;
  /** Minutes since midnight, in (0, 1440]; not after `from`: on the next day. */
  readonly to: number;
}

export interface HoursWindow extends Times {
  /** On which it begins; 0 is Sunday. */
  readonly days: readonly number[];
}

/** The times in `text`, or undefined. Equal ends are none: a whole day is 00:00-24:00. */
export function parseTimes(text: string): Times | undefined {
  const [, h1, m1, h2, m2] = /^\s*(\d{1,2}):(\d{2})\s*[-–]\s*(\d{1,2}):(\d{2})\s*$/.exec(text) ?? [];
  if (h1 === undefined) return undefined;
  const [from, to] = [Number(h1) * 60 + Number(m1), Number(h2) * 60 + Number(m2)];
  if (Number(m1) > 59 || Number(m2) > 59 || from >= 1440 || to > 1440 || to === 0 || from === to)
    return undefined;
  return { from, to };
}

/** Numbers of the days in names and ranges ("Mon", "Fri-Sun", "Saturday"), sorted, or undefined. */
export function parseDays(texts: readonly string[]): number[] | undefined {
  const numbers = new Set<number>();
  for (const text of texts) {
    const [first = '', last = first, ...rest] = text.split(/[-–]/).map((name) => name.trim());
    const [from, to] = [dayNumber(first), dayNumber(last)];
    if (from < 0 || to < 0 || rest.length > 0) return undefined;
    for (let day = from; ; day = (day + 1) % 7) {
      numbers.add(day);
      if (day === to) break;
    }
  }
  return [...numbers].sort();
}

/** When the hours that hold `at` end, overlapping and adjoining windows taken together; undefined when it is in none. */
export function closesAt(windows: readonly HoursWindow[], at: number): number | undefined {
  let end: number | undefined;
  // A week of windows that follow each other has no end worth naming.
  for (const limit = at + 8 * 86_400_000; (end ?? at) < limit; ) {
    const from: number = end ?? at;
    const later = occurrences(windows, from)
      .filter((one) => one.start <= from && from < one.end)
      .map((one) => one.end);
    if (later.length === 0) return end;
    end = Math.max(...later);
  }
  return end;
}

/** When the next window begins after `at`. */
export function opensAt(windows: readonly HoursWindow[], at: number): number {
  return Math.min(
    ...occurrences(windows, at)
      .map((one) => one.start)
      .filter((start) => start > at),
  );
}

/** "20:00-06:00 on Mon, Tue". */
export function describeHours(windows: readonly HoursWindow[]): string {
  return windows
    .map(({ from, to, days }) => {
      const on = days.length === 7 ? '' : ` on ${days.map((day) => DAY_NAMES[day]).join(', ')}`;
      return `${clock(from)}-${clock(to)}${on}`;
    })
    .join(' and ');
}

/** All windows that begin from the day before `at` to eight days after it, as times. */
function occurrences(windows: readonly HoursWindow[], at: number): { start: number; end: number }[] {
  const today = new Date(at);
  const found: { start: number; end: number }[] = [];
  for (let offset = -1; offset <= 8; offset++) {
    const dateAt = (minutes: number) =>
      new Date(today.getFullYear(), today.getMonth(), today.getDate() + offset, 0, minutes).getTime();
    const weekday = new Date(today.getFullYear(), today.getMonth(), today.getDate() + offset, 12).getDay();
    for (const { from, to, days } of windows) {
      if (!days.includes(weekday)) continue;
      found.push({ start: dateAt(from), end: dateAt(to > from ? to : to + 1440) });
    }
  }
  return found;
}

function dayNumber(name: string): number {
  const wanted = name.toLowerCase();
  return wanted.length < 3
    ? -1
    : ['sunday', 'monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday'].findIndex((day) =>
        day.startsWith(wanted),
      );
}

function clock(minutes: number): string {
  return `${String(Math.floor(minutes / 60)).padStart(2, '0')}:${String(minutes % 60).padStart(2, '0')}`;
}
