/** The wrappers around node:crypto, by the vectors of the standards. */
import { describe, expect, test } from 'vitest';
import {
  createKeyPair,
  deriveKey,
  isSigned,
  keyPairOf,
  open,
  seal,
} from '../../src/secure-aggregation/keys.ts';

const bytes = (hex: string) => new Uint8Array(Buffer.from(hex, 'hex'));
const hex = (value: Uint8Array | undefined) => Buffer.from(value ?? []).toString('hex');

test('X25519 gives the keys and the secret of RFC 7748, section 6.1', () => {
  const bob = keyPairOf(bytes('5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb'));
  expect(hex(bob.publicKey)).toBe('de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f');
  const alice = bytes('8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a');
  expect(hex(bob.agree(alice))).toBe('4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742');
});

test('a public key that gives everybody the same secret gives none, and an erased pair has zeros', () => {
  const pair = createKeyPair();
  expect(pair.agree(new Uint8Array(32))).toBeUndefined();
  pair.erase();
  expect(pair.privateKey).toEqual(new Uint8Array(32));
  expect(() => pair.agree(createKeyPair().publicKey)).toThrow('erased');
});

test('HKDF-SHA256 gives the first 32 bytes of RFC 5869, appendix A.3', () => {
  expect(hex(deriveKey(new Uint8Array(22).fill(0x0b), new Uint8Array(0)))).toBe(
    '8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d',
  );
});

describe('AES-256-GCM', () => {
  test('opens test case 14 of the GCM specification', () => {
    const sealed = `${'00'.repeat(12)}cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919`;
    expect(open(new Uint8Array(32), bytes(sealed), new Uint8Array(0))).toEqual(new Uint8Array(16));
  });

  test('opens what was sealed, and nothing that was changed, cut, bound to something else or sealed by another key', () => {
    const key = new Uint8Array(32).fill(7);
    const [text, bound] = [new Uint8Array(64).fill(3), Buffer.from('round 1')];
    const sealed = seal(key, text, bound);
    expect(open(key, sealed, bound)).toEqual(text);
    for (let i = 0; i < sealed.length; i++) {
      const changed = sealed.slice();
      changed[i]! ^= 1;
      expect(open(key, changed, bound)).toBeUndefined();
    }
    expect(open(key, sealed.subarray(0, -1), bound)).toBeUndefined();
    expect(open(key, sealed.subarray(0, 20), bound)).toBeUndefined();
    expect(open(key, sealed, Buffer.from('round 2'))).toBeUndefined();
    expect(
      open(
        key.map((byte) => byte + 1),
        sealed,
        bound,
      ),
    ).toBeUndefined();
    expect(seal(key, text, bound)).not.toEqual(sealed);
  });
});

test('Ed25519 takes the signature of RFC 8032, section 7.1, test 1, and no other', () => {
  const key = Buffer.from('d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a', 'hex').toString(
    'base64url',
  );
  const signature = bytes(
    'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b',
  );
  const nothing = new Uint8Array(0);
  expect(isSigned(key, nothing, signature)).toBe(true);
  expect(isSigned(key, Uint8Array.of(0), signature)).toBe(false);
  expect(isSigned(key, nothing, signature.subarray(1))).toBe(false);
  expect(isSigned('no key', nothing, signature)).toBe(false);
});
