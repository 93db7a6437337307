/** Errors of privacy. Branch on `code`, not on the class; docs/errors.md lists every code and what to do about it. */

export const PRIVACY_ERROR_CODES = [
  'FED_PRIVACY_PARAMETER',
  'FED_PRIVACY_ACCOUNTANT',
  'FED_PRIVACY_UPDATE_NOT_FINITE',
] as const;
export type PrivacyErrorCode = (typeof PRIVACY_ERROR_CODES)[number];

/** Thrown when a mechanism can't keep what it promises; the message says which number or message is at fault. */
export class PrivacyError extends Error {
  override readonly name = 'PrivacyError' as const;
  readonly code: PrivacyErrorCode;

  constructor(code: PrivacyErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}
