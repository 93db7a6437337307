import { describe, expect, test } from 'vitest';
import { closesAt, opensAt, parseDays, parseTimes } from '../../src/policy/hours.ts';

/** A local time of the week that begins on Sunday, 1 March 2026. */
const at = (day: number, hour: number, minute = 0) => new Date(2026, 2, 1 + day, hour, minute).getTime();
const EVERY_DAY = [0, 1, 2, 3, 4, 5, 6];
const NIGHT = { from: 20 * 60, to: 6 * 60, days: EVERY_DAY };

describe('hours', () => {
  test('a night begins on one day and ends on the next', () => {
    expect(closesAt([NIGHT], at(2, 19, 59))).toBeUndefined();
    expect(opensAt([NIGHT], at(2, 19, 59))).toBe(at(2, 20));
    expect(closesAt([NIGHT], at(2, 20))).toBe(at(3, 6));
    expect(closesAt([NIGHT], at(3, 5, 59))).toBe(at(3, 6));
    // The end is outside.
    expect(closesAt([NIGHT], at(3, 6))).toBeUndefined();
  });

  test('a day names where a window begins', () => {
    const friday = { ...NIGHT, days: [5] };
    expect(closesAt([friday], at(5, 23))).toBe(at(6, 6));
    expect(closesAt([friday], at(6, 5))).toBe(at(6, 6)); // Saturday morning belongs to Friday's night
    expect(closesAt([friday], at(6, 23))).toBeUndefined();
    expect(opensAt([friday], at(6, 7))).toBe(at(5 + 7, 20));
  });

  test('windows that overlap or adjoin are one', () => {
    const weekend = { from: 0, to: 1440, days: [0, 6] };
    // Friday 20:00, over Saturday and Sunday, Sunday's night, to Monday 06:00 (a week on).
    expect(closesAt([NIGHT, weekend], at(5, 21))).toBe(at(8, 6));
  });

  test('hours without an end close no sooner than in a week', () => {
    const always = { from: 0, to: 1440, days: EVERY_DAY };
    expect(closesAt([always], at(1, 12))).toBeGreaterThan(at(8, 0));
  });

  test('parseTimes: takes times of day and nothing else', () => {
    expect(parseTimes('20:00-06:00')).toEqual({ from: 1200, to: 360 });
    expect(parseTimes(' 8:30 – 24:00 ')).toEqual({ from: 510, to: 1440 });
    for (const text of [
      '20-6',
      '24:00-06:00',
      '20:00-24:01',
      '20:60-21:00',
      '06:00-06:00',
      '20:00-00:00',
      '',
    ])
      expect(parseTimes(text), text).toBeUndefined();
  });

  test('parseDays: takes names and ranges, over the end of the week too', () => {
    expect(parseDays(['Fri-Mon', 'wednesday'])).toEqual([0, 1, 3, 5, 6]);
    for (const text of ['Fr', 'Mon-', 'Mon-Tue-Wed', 'Feiertag', ''])
      expect(parseDays([text]), text).toBeUndefined();
  });
});
