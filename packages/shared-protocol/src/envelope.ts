/**
 * Envelopes: one message as MessagePack, checked against its schema on arrival. Both ends state their version in
 * `hello` and `welcome`; the major must be the same, and the lower minor is spoken.
 */
import type { z } from 'zod';
import { ProtocolError } from './errors.ts';
import { DEFAULT_LIMITS, type Limits } from './limits.ts';
import { packPlain, unpackPlain } from './messagepack.ts';
import { type Message, type MessageType, messageSchema, PROTOCOL_VERSION } from './messages.ts';

export interface ProtocolVersion {
  readonly major: number;
  readonly minor: number;
}

/** Arrays, maps, keys and scalars of one envelope; bounds the objects that 4 MiB of one-byte values would make. */
export const MAX_MESSAGE_VALUES = 262_144;

const GREETINGS: ReadonlySet<string> = new Set<MessageType>(['challenge', 'challenged', 'hello', 'welcome']);
const MESSAGE_TYPES: ReadonlySet<string> = new Set<MessageType>(
  messageSchema.options.map((option) => option.shape.type.value),
);

/**
 * The envelope of a message. Fields that are undefined are left out; half a surrogate pair, as a cut text may end with,
 * becomes U+FFFD, for a peer refuses what is not UTF-8. The bytes may share a larger buffer.
 */
export function encodeMessage(message: Message): Uint8Array {
  return packPlain(wellFormed(message));
}

/**
 * The message in an envelope, every field checked. Holds no reference to `bytes`.
 *
 * Throws FED_PROTOCOL_LIMIT past `limits.maxMessageBytes` or MAX_MESSAGE_VALUES, FED_PROTOCOL_MESSAGE_MALFORMED
 * naming the field for bytes that are no message, and FED_PROTOCOL_VERSION for a greeting (`challenge`, `hello` and
 * their answers) of another major version, whose other fields may be anything.
 */
export function decodeMessage(bytes: Uint8Array, limits: Limits = DEFAULT_LIMITS): Message {
  if (bytes.byteLength > limits.maxMessageBytes) {
    throw new ProtocolError(
      'FED_PROTOCOL_LIMIT',
      `message: ${bytes.byteLength} bytes, more than the limit of ${limits.maxMessageBytes}`,
    );
  }
  const value = unpackPlain(bytes, {
    what: 'message',
    code: 'FED_PROTOCOL_MESSAGE_MALFORMED',
    maxValues: MAX_MESSAGE_VALUES,
  });
  const type = typeOf(value);
  if (GREETINGS.has(type)) refuseOtherMajor(value);
  const result = messageSchema.safeParse(value);
  if (result.success) return result.data;
  throw new ProtocolError('FED_PROTOCOL_MESSAGE_MALFORMED', describe(type, result.error));
}

/**
 * The version that both ends speak: our major, the lower of the two minors.
 *
 * Throws FED_PROTOCOL_VERSION, naming both versions, when the majors differ.
 */
export function negotiate(
  theirs: ProtocolVersion,
  ours: ProtocolVersion = PROTOCOL_VERSION,
): ProtocolVersion {
  if (theirs.major !== ours.major) {
    const older = theirs.major < ours.major ? 'the other end' : 'this end';
    throw new ProtocolError(
      'FED_PROTOCOL_VERSION',
      `the other end speaks protocol ${theirs.major}.${theirs.minor}, this end ${ours.major}.${ours.minor}: ` +
        `update ${older} to a release with the same major version`,
    );
  }
  return { major: ours.major, minor: Math.min(theirs.minor, ours.minor) };
}

/** A copy of plain data with well-formed texts only, keys included: what arrives of it at the other end. */
export function wellFormed(value: unknown): unknown {
  if (typeof value === 'string') return value.replace(/\p{Surrogate}/gu, '\ufffd');
  if (Array.isArray(value)) return value.map(wellFormed);
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype)
    return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [wellFormed(key), wellFormed(inner)]),
  );
}

function typeOf(value: unknown): string {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ProtocolError('FED_PROTOCOL_MESSAGE_MALFORMED', 'message: expected a map with a field "type"');
  }
  const type = 'type' in value ? value.type : undefined;
  if (typeof type !== 'string' || !MESSAGE_TYPES.has(type)) {
    throw new ProtocolError('FED_PROTOCOL_MESSAGE_MALFORMED', `message: type: unknown type ${show(type)}`);
  }
  return type;
}

/** Looks at the version before the schema does: a later major may have other fields, and should hear why. */
function refuseOtherMajor(value: unknown): void {
  const { protocol } = value as { protocol?: unknown };
  if (typeof protocol !== 'object' || protocol === null) return;
  const { major, minor } = protocol as { major?: unknown; minor?: unknown };
  if (!Number.isSafeInteger(major)) return;
  negotiate({ major: Number(major), minor: Number.isSafeInteger(minor) ? Number(minor) : 0 });
}

function describe(type: string, error: z.ZodError): string {
  const [first] = error.issues;
  if (first === undefined) return `message "${type}": malformed`;
  const field = first.path.map(String).join('.');
  const more = error.issues.length > 1 ? ` (and ${error.issues.length - 1} more)` : '';
  return `message "${type}": ${field === '' ? '' : `${field}: `}${first.message}${more}`.slice(0, 500);
}

function show(value: unknown): string {
  return typeof value === 'string'
    ? JSON.stringify(value.slice(0, 64))
    : value === undefined
      ? '(none)'
      : typeof value;
}
