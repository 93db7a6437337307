/** One-time secrets: random text that is shown once, kept only as its SHA-256, and compared in constant time. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';

/** 256 random bits in base64url. */
export function newSecret(): string {
  return randomBytes(32).toString('base64url');
}

/** Lower-case hex. A secret has 256 bits, so a plain hash can't be turned back by guessing. */
export function hashSecret(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

/** Whether `secret` has the hash `expected`, in a time that does not depend on where they differ. */
export function matchesHash(secret: string, expected: string): boolean {
  const actual = Buffer.from(hashSecret(secret), 'hex');
  const wanted = Buffer.from(expected, 'hex');
  return wanted.length === actual.length && timingSafeEqual(actual, wanted);
}
