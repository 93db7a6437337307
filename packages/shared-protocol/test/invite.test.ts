import { decodeInvite, encodeInvite, type Invite } from '@tributary/shared-protocol';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

const invite: Invite = {
  url: 'https://192.0.2.7:7700',
  fingerprint: '0123456789abcdef'.repeat(4),
  secret: 'k3nbGm0Wc2Yq',
  runId: 'digits-2026',
  expiresAt: 1_800_000_000_000,
};
const malformed = (message: RegExp) =>
  expect.objectContaining({ code: 'FED_INVITE_MALFORMED', message: expect.stringMatching(message) });

describe('invite', () => {
  test('decodeInvite: gives back what was encoded', () => {
    const text = encodeInvite(invite);
    expect(text).toMatch(/^trib1\.[A-Za-z0-9_-]+$/);
    expect(decodeInvite(text)).toEqual(invite);
    const { fingerprint: _, ...plain } = { ...invite, url: 'http://localhost:7700' };
    expect(decodeInvite(encodeInvite(plain))).toEqual(plain);
  });

  test('decodeInvite: ignores white space around it and line breaks inside it', () => {
    const text = encodeInvite(invite);
    expect(decodeInvite(`\n  ${text.slice(0, 40)}\n${text.slice(40)} `)).toEqual(invite);
  });

  test('decodeInvite: any paste that lost its end is told by the checksum, any that lost its beginning by the prefix', () => {
    const text = encodeInvite(invite);
    for (let kept = 'trib1.'.length; kept < text.length; kept++) {
      expect(() => decodeInvite(text.slice(0, kept))).toThrow(malformed(/checksum.*to its very end/));
    }
    for (let lost = 1; lost < 20; lost++) {
      expect(() => decodeInvite(text.slice(lost))).toThrow(malformed(/does not start with "trib1\."/));
    }
  });

  test('decodeInvite: any one changed character is found', () => {
    const text = encodeInvite(invite);
    fc.assert(
      fc.property(
        fc.integer({ min: 6, max: text.length - 1 }),
        fc.constantFrom(...'AZaz09-_'),
        (at, character) => {
          fc.pre(text[at] !== character);
          expect(() => decodeInvite(text.slice(0, at) + character + text.slice(at + 1))).toThrow(
            malformed(/checksum/),
          );
        },
      ),
    );
  });

  test('decodeInvite: says which kind it is when another version made it', () => {
    expect(() => decodeInvite('trib2.AAAA')).toThrow(malformed(/"trib2\.".*update tributary/));
  });

  test('decodeInvite: whatever is pasted, the answer is an invite or FED_INVITE_MALFORMED', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.string().map((rest) => `trib1.${rest}`),
        ),
        (text) => {
          expect(() => decodeInvite(text)).toThrow(malformed(/^invite: /));
        },
      ),
    );
    expect(() => decodeInvite('x'.repeat(1_000_000))).toThrow(malformed(/too many/));
  });

  test('encodeInvite: names the field that is wrong, and never shows the secret', () => {
    const wrong = { ...invite, fingerprint: 'ABC', expiresAt: -1 };
    expect(() => encodeInvite(wrong)).toThrow(malformed(/fingerprint: .*expiresAt: /));
    expect(() => encodeInvite(wrong)).not.toThrow(malformed(new RegExp(invite.secret)));
    expect(() => encodeInvite({ ...invite, url: 'ftp://192.0.2.7' })).toThrow(malformed(/url: /));
    expect(() => encodeInvite({ ...invite, extra: 1 } as Invite)).toThrow(malformed(/extra/));
  });
});
