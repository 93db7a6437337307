import { createChannel, DEFAULT_LIMITS, encodeMessage, type Link } from '@tributary/shared-protocol';
import { createMemoryTransport } from '@tributary/shared-protocol/memory';
import { describe, expect, test } from 'vitest';

async function pair(): Promise<{ near: Link; far: Link }> {
  const transport = createMemoryTransport();
  let far: Link | undefined;
  const listener = await transport.listen((link) => {
    far = link;
  });
  const near = await transport.connect(listener.url);
  return { near, far: far as Link };
}

describe('channel', () => {
  test('call: gives the typed reply', async () => {
    const { near, far } = await pair();
    createChannel(far).handle(async (message) => ({
      type: 'status',
      status: message.type,
    }));
    expect(await createChannel(near).call({ type: 'get-status' }, 'status')).toEqual({
      type: 'status',
      status: 'get-status',
    });
  });

  test('callWithBody: bytes travel beside the message both ways', async () => {
    const { near, far } = await pair();
    createChannel(far).handle(async (_, body) => ({
      message: { type: 'ok' },
      body: Uint8Array.from(body).reverse(),
    }));
    const { body } = await createChannel(near).callWithBody({ type: 'get-status' }, 'ok', {
      body: Uint8Array.of(1, 2, 3),
    });
    expect([...body]).toEqual([3, 2, 1]);
  });

  test('call: a reply of another type is FED_PROTOCOL_MESSAGE_UNEXPECTED, naming both', async () => {
    const { near, far } = await pair();
    createChannel(far).handle(async () => ({ type: 'ok' }));
    await expect(createChannel(near).call({ type: 'get-status' }, 'status')).rejects.toMatchObject({
      code: 'FED_PROTOCOL_MESSAGE_UNEXPECTED',
      message: expect.stringMatching(/"get-status".*"status".*"ok"/),
    });
  });

  test('handle: an error with a FED_ code arrives as RemoteError; any other keeps its message to this side', async () => {
    const { near, far } = await pair();
    const seen: unknown[] = [];
    const errors = [
      Object.assign(new Error('wait a little'), { code: 'FED_ROUND_BUSY', retryable: true }),
      Object.assign(new Error('/secret/path'), { code: 'ENOENT' }),
    ];
    const [first, second] = errors;
    createChannel(far, { onHandlerError: (error) => seen.push(error) }).handle(async () => {
      throw errors.shift();
    });
    const channel = createChannel(near);
    await expect(channel.call({ type: 'ok' }, 'ok')).rejects.toMatchObject({
      name: 'RemoteError',
      code: 'FED_ROUND_BUSY',
      message: 'wait a little',
      retryable: true,
    });
    await expect(channel.call({ type: 'ok' }, 'ok')).rejects.toMatchObject({
      code: 'FED_INTERNAL',
      message: expect.not.stringContaining('secret'),
      retryable: false,
    });
    expect(seen).toEqual([first, second]);
  });

  test('handle: bytes that are no message are answered as that, and the link lives on', async () => {
    const { near, far } = await pair();
    createChannel(far).handle(async () => ({ type: 'ok' }));
    const raw = await near.request({ head: Uint8Array.of(0xc1, 0xff) });
    expect(Buffer.from(raw.head).toString('latin1')).toContain('FED_PROTOCOL_MESSAGE_MALFORMED');
    expect(await createChannel(near).call({ type: 'get-status' }, 'ok')).toEqual({ type: 'ok' });
  });

  test('limits: a body past maxChunkBytes is refused by whoever receives it', async () => {
    const { near, far } = await pair();
    const limits = { ...DEFAULT_LIMITS, maxChunkBytes: 10 };
    createChannel(far, { limits }).handle(async () => ({ type: 'ok' }));
    await expect(
      createChannel(near).callWithBody({ type: 'ok' }, 'ok', { body: new Uint8Array(11) }),
    ).rejects.toMatchObject({ name: 'RemoteError', code: 'FED_PROTOCOL_LIMIT' });
    far.onRequest(async () => ({ head: encodeMessage({ type: 'ok' }), body: new Uint8Array(11) }));
    await expect(createChannel(near, { limits }).call({ type: 'ok' }, 'ok')).rejects.toMatchObject({
      name: 'ProtocolError',
      code: 'FED_PROTOCOL_LIMIT',
    });
  });
});
