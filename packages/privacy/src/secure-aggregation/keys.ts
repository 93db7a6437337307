/**
 * The keys of one round, all from `node:crypto`: X25519 (RFC 7748) for what two sites share, HKDF-SHA256 (RFC 5869) for
 * what is derived from it, AES-256-GCM (NIST SP 800-38D) for the envelopes that pass through the coordinator, and Ed25519
 * (RFC 8032) for who said what. Secrets are byte arrays, so that they can be erased.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  type KeyObject,
  randomBytes,
  randomFillSync,
  verify,
} from 'node:crypto';

export const KEY_BYTES = 32;
export const SIGNATURE_BYTES = 64;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** What a sealed text is longer than its plaintext. */
export const SEAL_BYTES: number = NONCE_BYTES + TAG_BYTES;

/** An X25519 key pair; what is secret in it lasts until it is erased. */
export interface KeyPair {
  readonly publicKey: Uint8Array;
  /** 32 raw bytes, to share among others. */
  readonly privateKey: Uint8Array;
  /**
   * The 32 bytes that only the holders of either private key know, to derive keys from. Undefined when `publicKey` is one
   * of the few points that give the same secret with every key.
   */
  agree(publicKey: Uint8Array): Uint8Array | undefined;
  /** Fills the private key with zeros and forgets OpenSSL's copy of it, which is cleared when it is freed. */
  erase(): void;
}

const NO_SALT = new Uint8Array(32);
const FIRST_BLOCK = Uint8Array.of(1);

/** DER in front of the 32 raw bytes of an X25519 private key (PKCS #8, RFC 8410). */
const PRIVATE_PREFIX = Buffer.from('302e020100300506032b656e04220420', 'hex');

/**
 * A new random key pair. Not by `generateKeyPairSync`, though that takes a tenth of the time: in Node 20, to export a key
 * from it waits for ever when the garbage collector just then meets what made the key, as both lock it.
 */
export function createKeyPair(): KeyPair {
  return keyPairOf(randomFillSync(new Uint8Array(KEY_BYTES)));
}

/** The key pair of 32 raw private bytes, which are kept and erased with it. */
export function keyPairOf(privateKey: Uint8Array): KeyPair {
  const der = Buffer.concat([PRIVATE_PREFIX, privateKey]);
  // Reading a key takes OpenSSL several times as long as using it, so it is read once.
  let key: KeyObject | undefined = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  der.fill(0);
  const { x } = createPublicKey(key).export({ format: 'jwk' });
  return {
    privateKey,
    publicKey: new Uint8Array(Buffer.from(`${x}`, 'base64url')),
    agree(publicKey) {
      if (key === undefined) throw new TypeError('this key pair is erased');
      try {
        return diffieHellman({ privateKey: key, publicKey: publicKeyObject('X25519', base64url(publicKey)) });
      } catch {
        return undefined;
      }
    },
    erase() {
      privateKey.fill(0);
      key = undefined;
    },
  };
}

/**
 * 32 bytes for the one purpose that `info` names. Both steps of HKDF are one HMAC when no more is needed, and together take
 * half the time of `hkdfSync`.
 */
export function deriveKey(secret: Uint8Array, info: Uint8Array): Uint8Array {
  const extracted = createHmac('sha256', NO_SALT).update(secret).digest();
  const key = createHmac('sha256', extracted).update(info).update(FIRST_BLOCK).digest();
  extracted.fill(0);
  return new Uint8Array(key.buffer, key.byteOffset, key.length);
}

/** Nonce, ciphertext and tag of `plaintext`, bound to `associated`. */
export function seal(key: Uint8Array, plaintext: Uint8Array, associated: Uint8Array): Uint8Array {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(associated);
  return new Uint8Array(
    Buffer.concat([nonce, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]),
  );
}

/** What was sealed; undefined when it was sealed by another key or for something else, or was changed. */
export function open(key: Uint8Array, sealed: Uint8Array, associated: Uint8Array): Uint8Array | undefined {
  if (sealed.length < SEAL_BYTES) return undefined;
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, NONCE_BYTES), {
    authTagLength: TAG_BYTES,
  })
    .setAAD(associated)
    .setAuthTag(sealed.subarray(-TAG_BYTES));
  try {
    const text = decipher.update(sealed.subarray(NONCE_BYTES, -TAG_BYTES));
    decipher.final();
    // A view of what was deciphered, not a copy, so that whoever erases it erases all of it.
    return new Uint8Array(text.buffer, text.byteOffset, text.length);
  } catch {
    return undefined;
  }
}

/** Whether `signature` is that of the Ed25519 key (base64url of its 32 raw bytes) over `bytes`. */
export function isSigned(publicKey: string, bytes: Uint8Array, signature: Uint8Array): boolean {
  try {
    const key = publicKeyObject('Ed25519', publicKey);
    return verify(null, bytes, key, signature);
  } catch {
    // No key of that kind, or no point of the curve.
    return false;
  }
}

function publicKeyObject(crv: 'X25519' | 'Ed25519', x: string): KeyObject {
  return createPublicKey({ key: { kty: 'OKP', crv, x }, format: 'jwk' });
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64url');
}
