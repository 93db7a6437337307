import {
  createMessageSigner,
  createSigningKey,
  isProven,
  isPublicKey,
  isSignedBy,
  keyFingerprint,
  type Message,
  type MessageOf,
  readRecordLine,
  readSigningKey,
  type SignedMessage,
  sha256,
  signRecord,
} from '@tributary/shared-protocol';
import { keyFrom } from '@tributary/testkit';
import { describe, expect, test } from 'vitest';

/** The key and signature of RFC 8032, section 7.1, test 1: an empty message. */
const RFC_PEM = `-----BEGIN PRIVATE KEY-----
${Buffer.from('302e020100300506032b6570042204209d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60', 'hex').toString('base64')}
-----END PRIVATE KEY-----`;
const RFC_PUBLIC = 'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a';
const RFC_SIGNATURE =
  'e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b';

describe('keys', () => {
  test('readSigningKey: gives the key and the signature of RFC 8032', () => {
    const key = readSigningKey(RFC_PEM);
    expect(Buffer.from(key.publicKey, 'base64url').toString('hex')).toBe(RFC_PUBLIC);
    const signature = Buffer.from(key.signBytes(new Uint8Array(0)), 'base64url').toString('hex');
    expect(signature).toBe(RFC_SIGNATURE);
  });

  test('a key comes back from its PEM; what is no Ed25519 key is refused', () => {
    const key = createSigningKey();
    expect(readSigningKey(key.pem).publicKey).toBe(key.publicKey);
    expect(() => readSigningKey('nothing')).toThrow('not a private key');
  });

  test('isPublicKey: takes one spelling, of 32 bytes', () => {
    const { publicKey } = createSigningKey();
    expect(isPublicKey(publicKey)).toBe(true);
    // 43 characters are 258 bits: the last one has two to spare, which must be zero.
    const last = publicKey.at(-1) ?? '';
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    expect(isPublicKey(publicKey.slice(0, -1) + alphabet[alphabet.indexOf(last) + 1])).toBe(false);
    expect(isPublicKey('short')).toBe(false);
  });

  test('isSignedBy: the purpose, every field and the key count; the order of fields does not', () => {
    const key = createSigningKey();
    const signature = key.sign({ purpose: 'p', a: 1, b: [2, { c: 3, d: 4 }] });
    const holds = (statement: object, by = key.publicKey) =>
      isSignedBy(by, { purpose: 'p', ...statement }, signature);
    expect(holds({ b: [2, { d: 4, c: 3 }], a: 1 })).toBe(true);
    expect(holds({ a: 1, b: [2, { c: 3, d: 5 }] })).toBe(false);
    expect(holds({ purpose: 'q', a: 1, b: [2, { c: 3, d: 4 }] })).toBe(false);
    expect(holds({ a: 1, b: [2, { c: 3, d: 4 }] }, createSigningKey().publicKey)).toBe(false);
    expect(isSignedBy('no key', { purpose: 'p' }, signature)).toBe(false);
  });

  test('keyFingerprint: four groups of four digits of the SHA-256', () => {
    const { publicKey } = createSigningKey();
    const hash = sha256(Buffer.from(publicKey, 'base64url'));
    expect(keyFingerprint(publicKey).replaceAll(' ', '')).toBe(hash.slice(0, 16));
  });
});

describe('proofs', () => {
  const key = keyFrom('a site');
  const scope = { runId: 'run', session: 'session' };
  const offer = {
    type: 'offer',
    round: 1,
    base: 'a'.repeat(64),
    numExamples: 10,
    metrics: { loss: 0.1, ['accuracy 👋'.slice(0, 10)]: 1e21 },
    update: { digest: 'b'.repeat(64), bytes: 5, chunkBytes: 1 },
  } as const;

  test('createMessageSigner: signs what is to be signed, in order, and leaves the rest alone', () => {
    const sign = createMessageSigner({ key, now: () => 7, ...scope });
    const messages = [sign(offer), sign({ type: 'leave', reason: 'x' })] as SignedMessage[];
    expect(messages.map(({ signed }) => [signed.at, signed.counter])).toEqual([
      [7, 0],
      [7, 1],
    ]);
    for (const message of messages) expect(isProven(message, scope, key.publicKey)).toBe(true);
    expect(sign({ type: 'ok' })).toEqual({ type: 'ok' });
  });

  test('isProven: every field of the message, and what it is bound to, counts', () => {
    const message = createMessageSigner({ key, now: () => 7, ...scope })(offer) as MessageOf<'offer'>;
    const { signed } = message;
    const changed: Message[] = [
      { ...message, round: 2 },
      { ...message, numExamples: 11 },
      { ...message, metrics: { loss: 0.2 } },
      { ...message, update: { ...message.update, bytes: 6 } },
      { ...message, signed: { ...signed, at: 8 } },
      { ...message, signed: { ...signed, counter: 1 } },
    ];
    for (const other of changed) expect(isProven(other as SignedMessage, scope, key.publicKey)).toBe(false);
    expect(isProven(message, { ...scope, runId: 'other' }, key.publicKey)).toBe(false);
    expect(isProven(message, { ...scope, session: 'other' }, key.publicKey)).toBe(false);
  });
});

describe('record lines', () => {
  const key = createSigningKey();
  const record = signRecord({ type: 'left', seq: 0, at: 1, config: 'c', prev: '0'.repeat(64) }, key);
  const read = (text: string, by = key.publicKey) => readRecordLine(Buffer.from(text), by);

  test('a line holds as it was written, and in no other spelling', () => {
    expect(read(JSON.stringify(record))).toEqual({ record });
    expect(read(JSON.stringify(record, undefined, 1))).toMatchObject({ fault: { kind: 'format' } });
    const { type, ...rest } = record;
    expect(read(JSON.stringify({ ...rest, type }))).toEqual({ record: { ...rest, type } });
  });

  test('what is wrong with a line is told', () => {
    expect(read('{')).toMatchObject({ fault: { kind: 'format', what: 'is not JSON' } });
    expect(read('[]')).toMatchObject({ fault: { kind: 'format' } });
    expect(read(JSON.stringify({ ...record, at: 2 }))).toMatchObject({ fault: { kind: 'changed' } });
    expect(read(JSON.stringify(record), createSigningKey().publicKey)).toMatchObject({
      fault: { kind: 'signature' },
    });
  });
});
