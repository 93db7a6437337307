/** Errors of the wire. Branch on `code`, not on the class; docs/errors.md lists every code and what to do about it. */

export const PROTOCOL_ERROR_CODES = [
  'FED_PROTOCOL_VERSION',
  'FED_PROTOCOL_IDENTITY',
  'FED_PROTOCOL_MESSAGE_MALFORMED',
  'FED_PROTOCOL_MESSAGE_UNEXPECTED',
  'FED_PROTOCOL_LIMIT',
  'FED_PROTOCOL_FRAME_TRUNCATED',
  'FED_PROTOCOL_FRAME_MALFORMED',
  'FED_PROTOCOL_FRAME_DIGEST',
  'FED_PROTOCOL_CHUNK',
  'FED_PROTOCOL_BLOB_DIGEST',
  'FED_PROTOCOL_BLOB_UNKNOWN',
  'FED_TRANSPORT_CLOSED',
  'FED_TRANSPORT_TIMEOUT',
  'FED_TRANSPORT_UNREACHABLE',
  'FED_TRANSPORT_FINGERPRINT',
  'FED_TRANSPORT_ADDRESS_IN_USE',
  'FED_TRANSPORT_FORBIDDEN',
  'FED_TRANSPORT_UNSUPPORTED',
  'FED_INVITE_MALFORMED',
  'FED_INTERNAL',
] as const;
export type ProtocolErrorCode = (typeof PROTOCOL_ERROR_CODES)[number];

/** Thrown when bytes, a link or an invite are not what they should be. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError' as const;
  readonly code: ProtocolErrorCode;
  /** With FED_TRANSPORT_FINGERPRINT: of the certificate that was shown, in lower-case hex. */
  readonly fingerprint: string | undefined;

  constructor(
    code: ProtocolErrorCode,
    message: string,
    options?: ErrorOptions & { readonly fingerprint?: string | undefined },
  ) {
    super(message, options);
    this.code = code;
    this.fingerprint = options?.fingerprint;
  }
}

/** Thrown when the other end answered `error`; `code` is the peer's own. */
export class RemoteError extends Error {
  override readonly name = 'RemoteError' as const;
  readonly code: string;
  /** Whether the same request may succeed later. */
  readonly retryable: boolean;

  constructor(code: string, message: string, retryable: boolean) {
    super(message);
    this.code = code;
    this.retryable = retryable;
  }
}

/** The `code` of any error of ours, or undefined: works across package copies and realms. */
export function errorCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
