import { addressSchema, serverAddresses } from '@tributary/shared-protocol';
import { describe, expect, test } from 'vitest';

describe('addresses', () => {
  test.each([
    ['https://192.0.2.7:7700', ['https://192.0.2.7:7700']],
    ['tls://a:4222/ward', ['tls://a:4222/ward']],
    ['tls://a:4222,b:4223/ward', ['tls://a:4222/ward', 'tls://b:4223/ward']],
    ['nats://a,[::1]:4222', ['nats://a', 'nats://[::1]:4222']],
    // No list: a coordinator's own address is one.
    ['https://a,b', ['https://a,b']],
  ])('%s stands for %j', (address, servers) => {
    expect(serverAddresses(address)).toEqual(servers);
  });

  test('the schema takes one or several, each an address with a scheme that is allowed', () => {
    const schema = addressSchema(/^(nats|tls)$/, 'expected an address');
    const takes = (text: unknown) => schema.safeParse(text).success;
    expect(takes('tls://a:4222/ward')).toBe(true);
    expect(takes('tls://a:4222,b:4222,c:4222/ward')).toBe(true);
    expect(takes(`tls://${Array.from({ length: 16 }, (_, i) => `h${i}`).join(',')}`)).toBe(true);
    expect(takes(`tls://${Array.from({ length: 17 }, (_, i) => `h${i}`).join(',')}`)).toBe(false);
    for (const wrong of ['https://a', 'tls://a:4222,,b', 'tls://a:x,b', 'a,b', '', 7])
      expect(takes(wrong), String(wrong)).toBe(false);
  });
});
