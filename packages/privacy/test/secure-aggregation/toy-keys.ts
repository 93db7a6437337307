/**
 * In place of keys.ts, where thousands of rounds ask about drop-outs and nothing about secrecy: the same functions, the
 * same sizes and the same failures, at a hundredth of the price. Rounds with real keys are in rounds.test.ts.
 */
import { randomBytes } from 'node:crypto';
import type * as Keys from '../../src/secure-aggregation/keys.ts';

/** FNV-1a over all bytes, spread over 32: different for different bytes, and that is all. */
const hash = (...parts: Uint8Array[]): Uint8Array => {
  let [a, b] = [0x811c9dc5, 0x9747b28c];
  for (const part of parts)
    for (let i = 0; i < part.length; i++) {
      a = Math.imul(a ^ part[i]!, 0x01000193);
      b = Math.imul(b ^ part[i]!, 0x5bd1e995) ^ (b >>> 15);
    }
  const words = new Int32Array(8).map((_, i) => (i % 2 === 0 ? a : b) ^ Math.imul(i, 0x9e3779b1));
  return new Uint8Array(words.buffer);
};
const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;

/** Everybody's signature: it fits its bytes and no others. */
export const toySign = (bytes: Uint8Array): Uint8Array => {
  const signature = new Uint8Array(64);
  signature.set(hash(bytes));
  return signature;
};

const keyPairOf = (privateKey: Uint8Array): Keys.KeyPair => ({
  privateKey,
  publicKey: privateKey.map((byte) => byte ^ 0x5a),
  // Both sides get the exclusive or of the two public keys.
  agree: (publicKey) => publicKey.map((byte, i) => byte ^ privateKey[i]! ^ 0x5a),
  erase: () => void privateKey.fill(0),
});

export const toyKeys: typeof Keys = {
  KEY_BYTES: 32,
  SIGNATURE_BYTES: 64,
  SEAL_BYTES: 28,
  createKeyPair: () => keyPairOf(new Uint8Array(randomBytes(32))),
  keyPairOf,
  deriveKey: hash,
  seal: (key, plaintext, associated) =>
    new Uint8Array(Buffer.concat([hash(key, associated).subarray(0, 28), plaintext])),
  open: (key, sealed, associated) =>
    same(sealed.subarray(0, 28), hash(key, associated).subarray(0, 28)) ? sealed.slice(28) : undefined,
  isSigned: (_, bytes, signature) => same(signature, toySign(bytes)),
};
