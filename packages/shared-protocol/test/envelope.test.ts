import {
  DEFAULT_LIMITS,
  decodeMessage,
  encodeMessage,
  type Message,
  messageSchema,
  negotiate,
  PROTOCOL_VERSION,
} from '@tributary/shared-protocol';
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { describe, expect, test } from 'vitest';
import { FEDERATION, MESSAGES } from './messages.ts';

const packr = new Packr({ useRecords: false, variableMapSize: true });
const MALFORMED = 'FED_PROTOCOL_MESSAGE_MALFORMED';
const refusal = (code: string, text = '') =>
  expect.objectContaining({ name: 'ProtocolError', code, message: expect.stringContaining(text) });

describe('encodeMessage and decodeMessage', () => {
  test('every type of message has a sample here', () => {
    const types = messageSchema.options.map((option) => option.shape.type.value);
    expect(MESSAGES.map((message) => message.type).sort()).toEqual([...types].sort());
  });

  test.each(MESSAGES.map((message) => [message.type, message] as const))(
    'decode of encode is identity: %s',
    (_, m) => {
      expect(decodeMessage(encodeMessage(m))).toEqual(m);
    },
  );

  test('decode of encode is identity for any text, number and metric', () => {
    const text = fc.string({ unit: 'grapheme', maxLength: 100 });
    const number = fc.double({ noNaN: true, noDefaultInfinity: true }).map((x) => x + 0); // −0 travels as 0
    const digest = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((b) => Buffer.from(b).toString('hex'));
    const offer = fc.record({
      type: fc.constant('offer' as const),
      round: fc.maxSafeNat(),
      base: digest,
      numExamples: number,
      metrics: fc.dictionary(
        text.filter((key) => key !== '__proto__'),
        number,
        { noNullPrototype: true },
      ),
      update: fc.record({ digest, bytes: fc.maxSafeNat(), chunkBytes: fc.integer({ min: 1 }) }),
      signed: fc.record({
        at: number,
        counter: fc.maxSafeNat(),
        signature: fc
          .uint8Array({ minLength: 64, maxLength: 64 })
          .map((b) => Buffer.from(b).toString('base64url')),
      }),
    });
    const goodbye = fc.record({ type: fc.constant('goodbye' as const), code: text, reason: text });
    fc.assert(
      fc.property(fc.oneof(offer, goodbye), (message: Message) => {
        expect(decodeMessage(encodeMessage(message))).toEqual(message);
      }),
      { numRuns: 2000 },
    );
  });

  test('fields that are undefined are left out', () => {
    const status: Message = { type: 'status', status: { waitingFor: undefined, round: 1 } };
    expect(decodeMessage(encodeMessage(status))).toEqual({ type: 'status', status: { round: 1 } });
  });

  test('a text that was cut in the middle of a character still arrives', () => {
    const cut: Message = { type: 'stop', reason: 'bye 👋'.slice(0, 5) };
    expect(decodeMessage(encodeMessage(cut))).toEqual({ type: 'stop', reason: 'bye \ufffd' });
  });

  test.each([
    ['a field of another type', { type: 'plan', task: 'fly' }, 'message "plan": task'],
    ['a nested field', { type: 'ready', site: { trainExamples: -1 } }, 'message "ready": site.trainExamples'],
    ['a field that is missing', { type: 'leave' }, 'message "leave": reason'],
    ['a field too many', { type: 'ok', extra: 1 }, '"extra"'],
    ['an unknown type', { type: 'launch' }, 'unknown type "launch"'],
    ['no type', { round: 1 }, 'unknown type (none)'],
    ['a type that objects inherit', { type: 'constructor' }, 'unknown type "constructor"'],
    ['NaN', { type: 'heartbeat', state: 'idle', round: 0, progress: Number.NaN }, 'progress'],
    ['a list', [1, 2], 'expected a map'],
    ['nothing', null, 'expected a map'],
  ])('%s is FED_PROTOCOL_MESSAGE_MALFORMED, and the field is named', (_what, value, text) => {
    expect(() => decodeMessage(packr.pack(value))).toThrow(refusal(MALFORMED, text));
  });

  test('defaults of the schema are filled in for a peer that leaves them out', () => {
    const { keepAspectRatio, ...input } = FEDERATION.input;
    const welcome = MESSAGES.find((message) => message.type === 'welcome')!;
    const decoded = decodeMessage(packr.pack({ ...welcome, federation: { ...FEDERATION, input } }));
    expect(decoded).toEqual(welcome);
    expect(keepAspectRatio).toBe(false);
  });

  test('more bytes than maxMessageBytes are refused unread', () => {
    const limits = { ...DEFAULT_LIMITS, maxMessageBytes: 10 };
    expect(() => decodeMessage(new Uint8Array(11).fill(0xc1), limits)).toThrow(
      refusal('FED_PROTOCOL_LIMIT', '11'),
    );
  });

  test('every truncation of a message is malformed', () => {
    const bytes = encodeMessage(MESSAGES[1]!);
    for (let length = 0; length < bytes.byteLength; length++) {
      expect(() => decodeMessage(bytes.subarray(0, length)), `${length} bytes`).toThrow(refusal(MALFORMED));
    }
  });

  test('any bytes are a message or a ProtocolError, and leave Object.prototype alone', () => {
    const before = Reflect.ownKeys(Object.prototype).length;
    const sample = MESSAGES.map((message) => encodeMessage(message));
    fc.assert(
      fc.property(
        fc.constantFrom(...sample),
        fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 4 }),
        fc.uint8Array({ maxLength: 8 }),
        (bytes, edits, tail) => {
          const mutated = Buffer.concat([bytes, tail]);
          for (const [at, byte] of edits) mutated[at % mutated.length] = byte;
          try {
            decodeMessage(mutated);
          } catch (error) {
            if ((error as Error).name !== 'ProtocolError') throw error;
          }
        },
      ),
      { numRuns: 20_000 },
    );
    expect(Reflect.ownKeys(Object.prototype)).toHaveLength(before);
  });
});

describe('negotiate', () => {
  test('the lower minor of one major is spoken', () => {
    expect(negotiate({ major: 1, minor: 2 }, { major: 1, minor: 5 })).toEqual({ major: 1, minor: 2 });
    expect(negotiate({ major: 1, minor: 9 }, { major: 1, minor: 5 })).toEqual({ major: 1, minor: 5 });
    expect(negotiate(PROTOCOL_VERSION)).toEqual(PROTOCOL_VERSION);
  });

  test('another major is refused, with both versions and who should update', () => {
    expect(() => negotiate({ major: 2, minor: 1 }, { major: 1, minor: 0 })).toThrow(
      refusal('FED_PROTOCOL_VERSION', 'the other end speaks protocol 2.1, this end 1.0: update this end'),
    );
    expect(() => negotiate({ major: 1, minor: 0 }, { major: 2, minor: 0 })).toThrow(
      refusal('FED_PROTOCOL_VERSION', 'update the other end'),
    );
  });

  test('hello from another major hears of the version, whatever its other fields are', () => {
    const hello = packr.pack({ type: 'hello', protocol: { major: 7, minor: 3 }, handshake: 'new' });
    expect(() => decodeMessage(hello)).toThrow(refusal('FED_PROTOCOL_VERSION', 'protocol 7.3'));
  });
});
