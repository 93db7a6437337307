/**
 * Secrets that lie in the store, sealed with AES-256-GCM. The key follows from the coordinator's own key for the NATS
 * server (HKDF-SHA256): every machine that may lead has that file, and the server never sees what is in it.
 */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';

export interface Seal {
  seal(name: string, text: string): Uint8Array;
  /** The text; undefined when it was sealed with another key or changed. */
  open(name: string, sealed: Uint8Array): string | undefined;
}

const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** `name` is bound to the sealed text: one secret can't be put in another's place. */
export function createSeal(seed: Uint8Array, prefix: string): Seal {
  const key = Buffer.from(hkdfSync('sha256', seed, prefix, 'tributary/run-store', 32));
  return {
    seal(name, text) {
      const nonce = randomBytes(NONCE_BYTES);
      const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(name));
      return Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]);
    },
    open(name, sealed) {
      const bytes = Buffer.from(sealed);
      const at = bytes.byteLength - TAG_BYTES;
      if (at < NONCE_BYTES) return undefined;
      const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, NONCE_BYTES))
        .setAAD(Buffer.from(name))
        .setAuthTag(bytes.subarray(at));
      try {
        return decipher.update(bytes.subarray(NONCE_BYTES, at), undefined, 'utf8') + decipher.final('utf8');
      } catch {
        // The tag does not fit: what came out is worth nothing.
        return undefined;
      }
    },
  };
}
