/** Privacy as mathematics on typed arrays. No I/O, no configuration, no tfjs. */
export type { PrivacyErrorCode } from './errors.ts';
export { PRIVACY_ERROR_CODES, PrivacyError } from './errors.ts';
export type { RandomWords } from './random.ts';
export { cryptoWords } from './random.ts';
