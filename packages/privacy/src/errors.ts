/** Errors of privacy. Branch on `code`, not on the class; docs/errors.md lists every code and what to do about it. */

export const PRIVACY_ERROR_CODES = [
  'FED_PRIVACY_PARAMETER',
  'FED_PRIVACY_ACCOUNTANT',
  'FED_PRIVACY_UPDATE_NOT_FINITE',
  'FED_PRIVACY_SECAGG_OVERFLOW',
  'FED_PRIVACY_SECAGG_UPDATE',
  'FED_PRIVACY_SECAGG_STAGE',
  'FED_PRIVACY_SECAGG_MESSAGE',
  'FED_PRIVACY_SECAGG_SIGNATURE',
  'FED_PRIVACY_SECAGG_KEYS',
  'FED_PRIVACY_SECAGG_ENVELOPE',
  'FED_PRIVACY_SECAGG_SETS',
  'FED_PRIVACY_SECAGG_TOO_FEW',
  'FED_PRIVACY_SECAGG_SHARES',
  'FED_PRIVACY_SECAGG_NOISE',
] as const;
export type PrivacyErrorCode = (typeof PRIVACY_ERROR_CODES)[number];

/** Thrown when a mechanism can't keep what it promises; the message says which number or message is at fault. */
export class PrivacyError extends Error {
  override readonly name = 'PrivacyError' as const;
  readonly code: PrivacyErrorCode;
  /** The site whose message is at fault, where it is one site's. */
  readonly site: string | undefined;

  constructor(code: PrivacyErrorCode, message: string, options?: ErrorOptions & { readonly site?: string }) {
    super(message, options);
    this.code = code;
    this.site = options?.site;
  }
}
