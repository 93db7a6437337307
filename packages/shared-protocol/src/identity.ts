/**
 * Who signed what: Ed25519 keys (RFC 8032) of nodes and runs, and signatures over statements. A statement is a value
 * that names its purpose, as canonical JSON, so that a signature made for one purpose never fits another. Keys travel
 * as base64url of their 32 raw bytes, signatures as base64url of 64.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto';
import { canonicalJson } from './digest.ts';

/** What is signed; `purpose` keeps kinds of statements apart. */
export interface Statement {
  readonly purpose: string;
  readonly [field: string]: unknown;
}

export interface SigningKey {
  /** Base64url of the raw public key. */
  readonly publicKey: string;
  /** The private key, PKCS #8 in PEM: readable by its owner only, wherever it is kept. */
  readonly pem: string;
  /** Base64url of the signature over the statement. */
  sign(statement: Statement): string;
  /** As `sign`, over bytes as they are. */
  signBytes(bytes: Uint8Array): string;
}

const KEY = /^[A-Za-z0-9_-]{43}$/;
const SIGNATURE_CHARACTERS = 86;

/**
 * A new random key. It is read back from its text: in Node 20, to export a key object that `generateKeyPairSync` has made
 * may wait for ever, when the garbage is collected meanwhile.
 */
export function createSigningKey(): SigningKey {
  const { privateKey } = generateKeyPairSync('ed25519', {
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
  return readSigningKey(privateKey);
}

/** The key in a PEM file's text. Throws TypeError when it is not a private Ed25519 key. */
export function readSigningKey(pem: string | Uint8Array): SigningKey {
  let key: KeyObject;
  try {
    key = createPrivateKey(typeof pem === 'string' ? pem : Buffer.from(pem));
  } catch (cause) {
    throw new TypeError('not a private key in PEM', { cause });
  }
  if (key.asymmetricKeyType !== 'ed25519')
    throw new TypeError(`a private key of type ${key.asymmetricKeyType}, not Ed25519`);
  return signingKey(key);
}

/** Whether `text` is a public key as this protocol writes one. */
export function isPublicKey(text: string): boolean {
  return KEY.test(text) && Buffer.from(text, 'base64url').toString('base64url') === text;
}

/** Whether `signature` is that of `publicKey` over the statement; false too for what is no key or no signature. */
export function isSignedBy(publicKey: string, statement: Statement, signature: string): boolean {
  return areSignedBy(publicKey, statementBytes(statement), signature);
}

/** As `isSignedBy`, over bytes as they are. Takes a signature in its one canonical spelling only. */
export function areSignedBy(publicKey: string, bytes: Uint8Array, signature: string): boolean {
  if (!isPublicKey(publicKey) || signature.length !== SIGNATURE_CHARACTERS) return false;
  const raw = Buffer.from(signature, 'base64url');
  if (raw.toString('base64url') !== signature) return false;
  try {
    const key = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x: publicKey }, format: 'jwk' });
    return verify(null, bytes, key, raw);
  } catch {
    // 32 bytes that are no point of the curve.
    return false;
  }
}

/** A public key's name for people: the SHA-256 of its raw bytes, in groups of four hex digits, the first 16 of them. */
export function keyFingerprint(publicKey: string): string {
  const hash = createHash('sha256').update(Buffer.from(publicKey, 'base64url')).digest('hex');
  return (hash.slice(0, 16).match(/.{4}/g) ?? []).join(' ');
}

function signingKey(key: KeyObject): SigningKey {
  return {
    publicKey: createPublicKey(key).export({ format: 'jwk' })['x'] ?? '',
    pem: String(key.export({ type: 'pkcs8', format: 'pem' })),
    sign: (statement) => sign(null, statementBytes(statement), key).toString('base64url'),
    signBytes: (bytes) => sign(null, bytes, key).toString('base64url'),
  };
}

function statementBytes(statement: Statement): Buffer {
  return Buffer.from(canonicalJson(statement), 'utf8');
}
