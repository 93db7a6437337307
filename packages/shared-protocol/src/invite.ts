/**
 * Invites: all that a site needs to join, as one word to paste. `trib1.` and base64url of the checksum (the first six
 * bytes of the payload's SHA-256) and the payload, JSON in UTF-8. The checksum tells a paste that lost its end from
 * one that was never an invite; it is no signature: the secret inside is what the coordinator checks.
 */
import { createHash } from 'node:crypto';
import { z } from 'zod';
import { addressSchema } from './addresses.ts';
import { ProtocolError } from './errors.ts';

const PREFIX = 'trib1.';
const CHECKSUM_BYTES = 6;
/** An invite is a few hundred characters; what is longer was pasted by mistake. */
const MAX_CHARACTERS = 4096;

const inviteSchema = z.strictObject({
  /** The coordinator's address. */
  url: z
    .string()
    .max(2048)
    .pipe(addressSchema(/^(https?|nats|tls|memory)$/, 'an address like https://192.0.2.7:7700')),
  /** SHA-256 of its TLS certificate in lower-case hex; absent for a plain transport. */
  fingerprint: z
    .string()
    .regex(/^[0-9a-f]{64}$/, 'a SHA-256 in lower-case hex')
    .optional(),
  secret: z.string().min(1).max(256),
  runId: z.string().min(1).max(128),
  /** Base64url of the run's public Ed25519 key: what the coordinator proves, and what the run's log is signed with. */
  publicKey: z
    .string()
    .regex(/^[A-Za-z0-9_-]{43}$/, 'a public key in base64url')
    .optional(),
  /** Milliseconds since 1970, by the coordinator's clock. */
  expiresAt: z.int().min(0),
});
export type Invite = z.infer<typeof inviteSchema>;

/** The text of an invite. Throws FED_INVITE_MALFORMED, naming the field, for one that could not be read again. */
export function encodeInvite(invite: Invite): string {
  const payload = Buffer.from(JSON.stringify(checked(invite)), 'utf8');
  return PREFIX + Buffer.concat([checksumOf(payload), payload]).toString('base64url');
}

/**
 * The invite in `text`; white space around it and line breaks inside it (as terminals and mail add) are ignored.
 * Does not look at `expiresAt`: only the coordinator's clock counts.
 *
 * Throws FED_INVITE_MALFORMED, saying whether the beginning, the end or a field is at fault. Never shows the secret.
 */
export function decodeInvite(text: string): Invite {
  if (text.length > MAX_CHARACTERS) {
    throw malformed(
      `${text.length} characters are too many; paste only the text that starts with "${PREFIX}"`,
    );
  }
  const word = text.replace(/\s+/g, '');
  if (!word.startsWith(PREFIX)) {
    const version = /^trib\d+\./.exec(word)?.[0];
    throw malformed(
      version === undefined
        ? `it does not start with "${PREFIX}"; copy it whole, from the line that the coordinator printed`
        : `it is of the kind "${version}", this version reads "${PREFIX}"; update tributary here or there`,
    );
  }
  const encoded = word.slice(PREFIX.length);
  if (!/^[A-Za-z0-9_-]*$/.test(encoded)) {
    throw malformed('it has characters that no invite has; copy it again, without quotes or dots around it');
  }
  const bytes = Buffer.from(encoded, 'base64url');
  const payload = bytes.subarray(CHECKSUM_BYTES);
  // Base64 in its canonical form only, so that each invite has one spelling.
  const exact = bytes.toString('base64url') === encoded;
  if (!exact || payload.length === 0 || !checksumOf(payload).equals(bytes.subarray(0, CHECKSUM_BYTES))) {
    throw malformed('its checksum is wrong: a part is missing or changed; copy it again, to its very end');
  }
  let value: unknown;
  try {
    value = JSON.parse(payload.toString('utf8'));
  } catch (cause) {
    throw malformed('its content is not JSON', { cause });
  }
  return checked(value);
}

function checked(value: unknown): Invite {
  const result = inviteSchema.safeParse(value);
  if (result.success) return result.data;
  const problems = result.error.issues.map(
    ({ path, message }) => `${path.join('.') || 'content'}: ${message}`,
  );
  throw malformed(problems.join('; '));
}

function checksumOf(payload: Uint8Array): Buffer {
  return createHash('sha256').update(payload).digest().subarray(0, CHECKSUM_BYTES);
}

function malformed(problem: string, options?: ErrorOptions): ProtocolError {
  return new ProtocolError('FED_INVITE_MALFORMED', `invite: ${problem}`, options);
}
