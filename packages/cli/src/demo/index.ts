/** The demo's real digits as image folders, for the examples. */
export type { DigitFile, Digits, WriteDigitsOptions } from './digits.ts';
export { openDigits, writeDigits } from './digits.ts';
export type { Split, SplitOptions } from './split.ts';
export { splitDigits } from './split.ts';
