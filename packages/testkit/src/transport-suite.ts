/**
 * The compliance suite of transports: what every one of them must do alike, and what blobs do on top of it. Run it from
 * a test file: `testTransport({ name: 'memory', create: () => createMemoryTransport() })`.
 */
import type { Link, Listener, Packet, Transport } from '@tributary/shared-protocol';
import { afterEach, describe, expect, test } from 'vitest';
import { describeBlobs } from './blob-suite.ts';
import { once, withCode } from './matchers.ts';

export interface TransportUnderTest {
  readonly name: string;
  /** Returns a transport that can listen (on a free address) and connect, with 8 MiB as its largest payload. */
  create(): Transport | Promise<Transport>;
  /** Whether a body arrives as the very object that was sent. @default false */
  readonly sharesMemory?: boolean;
}

/** One listener and the links of one test; all are closed when the test ends. */
export interface Bench {
  readonly transport: Transport;
  readonly listener: Listener;
  /** A new link: the dialling end and the listening end. */
  dial(): Promise<{ near: Link; far: Link }>;
}

const MAX_PAYLOAD_BYTES = 8 * 1024 * 1024;

/** Declares the suite's tests with vitest. */
export function testTransport(subject: TransportUnderTest): void {
  describe(`transport ${subject.name}`, () => {
    const open: (() => Promise<void>)[] = [];
    afterEach(async () => {
      for (const close of open.splice(0).reverse()) await close();
    });

    async function bench(): Promise<Bench> {
      const transport = await subject.create();
      const arrivals: Link[] = [];
      const waiting: ((link: Link) => void)[] = [];
      const listener = await transport.listen((link) => {
        const take = waiting.shift();
        if (take === undefined) arrivals.push(link);
        else take(link);
      });
      open.push(() => listener.close());
      return {
        transport,
        listener,
        async dial() {
          const near = await transport.connect(listener.url, pinOf(listener));
          open.push(() => near.close());
          const far = arrivals.shift() ?? (await new Promise<Link>((resolve) => waiting.push(resolve)));
          return { near, far };
        },
      };
    }

    describeRequests(subject, bench);
    describeEnds(bench);
    describeBlobs(bench);
  });
}

function describeRequests(subject: TransportUnderTest, bench: () => Promise<Bench>): void {
  test('request: the reply carries the head and body that the handler gave', async () => {
    const { near, far } = await (await bench()).dial();
    far.onRequest(async ({ head, body }) => ({ head: reversed(head), body: reversed(body ?? bytes()) }));
    const reply = await near.request({ head: bytes(1, 2, 3), body: bytes(4, 5) });
    expect([...reply.head]).toEqual([3, 2, 1]);
    expect([...(reply.body ?? [])]).toEqual([5, 4]);
  });

  test('request: a packet without a body arrives without one', async () => {
    const { near, far } = await (await bench()).dial();
    let seen: Packet | undefined;
    far.onRequest(async (packet) => {
      seen = packet;
      return { head: bytes(9) };
    });
    const reply = await near.request({ head: bytes(1) });
    expect(seen?.body).toBeUndefined();
    expect(reply.body).toBeUndefined();
  });

  test('request: an empty head and an empty body stay what they are', async () => {
    const { near, far } = await (await bench()).dial();
    far.onRequest(async (packet) => packet);
    const reply = await near.request({ head: bytes(), body: bytes() });
    expect(reply.head.byteLength).toBe(0);
    expect(reply.body?.byteLength).toBe(0);
  });

  test('request: both ends ask at once, and replies out of order find their requests', async () => {
    const { near, far } = await (await bench()).dial();
    const held: { answer: () => void }[] = [];
    const allHeld = once<void>((resolve) => {
      for (const link of [near, far]) {
        link.onRequest(
          ({ head }) =>
            new Promise((reply) => {
              held.push({ answer: () => reply({ head: bytes((head[0] ?? 0) * 2) }) });
              if (held.length === 20) resolve();
            }),
        );
      }
    });
    const asked = Array.from({ length: 10 }, (_, index) => [
      near.request({ head: bytes(index) }),
      far.request({ head: bytes(100 + index) }),
    ]).flat();
    await allHeld;
    for (const { answer } of held.reverse()) answer();
    const replies = await Promise.all(asked);
    // 0, 200, 2, 202 … 18, 218: each is twice its question.
    expect(replies.map(({ head }) => head[0])).toEqual(
      Array.from({ length: 10 }, (_, index) => [index * 2, 200 + index * 2]).flat(),
    );
  });

  test('request: one that comes before the handler is set waits for it', async () => {
    const { near, far } = await (await bench()).dial();
    const early = near.request({ head: bytes(7) });
    const arrived = once<Packet>((resolve) => far.onNotify(resolve));
    // Notifications keep their place among requests: when this one is here, the request is, too.
    near.notify({ head: bytes(8) });
    await arrived;
    far.onRequest(async (packet) => packet);
    expect([...(await early).head]).toEqual([7]);
  });

  test('request: a body of 8 MiB arrives byte for byte', async () => {
    const { near, far } = await (await bench()).dial();
    far.onRequest(async (packet) => packet);
    const body = patterned(MAX_PAYLOAD_BYTES);
    const reply = await near.request({ head: bytes(1), body });
    expect(Buffer.compare(reply.body ?? bytes(), body)).toBe(0);
    // A sender's buffer is its own: no transport writes into it.
    expect(Buffer.compare(body, patterned(MAX_PAYLOAD_BYTES))).toBe(0);
  });

  test('request: a view into a larger buffer sends only the view', async () => {
    const { near, far } = await (await bench()).dial();
    far.onRequest(async (packet) => packet);
    const reply = await near.request({
      head: bytes(1, 2, 3, 4).subarray(1, 3),
      body: patterned(1000).subarray(500, 510),
    });
    expect([...reply.head]).toEqual([2, 3]);
    expect([...(reply.body ?? [])]).toEqual([...patterned(1000).subarray(500, 510)]);
  });

  if (subject.sharesMemory) {
    test('request: the body is not copied', async () => {
      const { near, far } = await (await bench()).dial();
      const body = bytes(1, 2, 3);
      far.onRequest(async (packet) => packet);
      expect((await near.request({ head: bytes(), body })).body).toBe(body);
    });
  }

  test('request: a packet past the limit is refused before it is sent, and the link lives on', async () => {
    const { near, far } = await (await bench()).dial();
    far.onRequest(async (packet) => packet);
    const large = new Uint8Array(MAX_PAYLOAD_BYTES + 1);
    await expect(near.request({ head: bytes(), body: large })).rejects.toMatchObject(
      withCode('FED_PROTOCOL_LIMIT'),
    );
    await expect(near.request({ head: large })).rejects.toMatchObject(withCode('FED_PROTOCOL_LIMIT'));
    expect(() => near.notify({ head: large })).toThrow(
      expect.objectContaining(withCode('FED_PROTOCOL_LIMIT')),
    );
    expect([...(await near.request({ head: bytes(1) })).head]).toEqual([1]);
  });

  test('request: a reply past the limit reaches the asker as that', async () => {
    const { near, far } = await (await bench()).dial();
    far.onRequest(async () => ({ head: bytes(), body: new Uint8Array(MAX_PAYLOAD_BYTES + 1) }));
    await expect(near.request({ head: bytes() })).rejects.toMatchObject({
      name: 'RemoteError',
      code: 'FED_PROTOCOL_LIMIT',
    });
  });

  test('request: no reply in time is FED_TRANSPORT_TIMEOUT, and a late one is nobody’s', async () => {
    const { near, far } = await (await bench()).dial();
    let answer: (packet: Packet) => void = () => {};
    far.onRequest(
      () =>
        new Promise((resolve) => {
          answer = resolve;
        }),
    );
    await expect(near.request({ head: bytes(1) }, { timeoutMs: 30 })).rejects.toMatchObject(
      withCode('FED_TRANSPORT_TIMEOUT'),
    );
    answer({ head: bytes(1) });
    far.onRequest(async () => ({ head: bytes(2) }));
    expect([...(await near.request({ head: bytes() })).head]).toEqual([2]);
  });

  test('request: an abort rejects with the reason itself, before and while it waits', async () => {
    const { near, far } = await (await bench()).dial();
    const asked = once<Packet>((resolve) =>
      far.onRequest((packet) => {
        resolve(packet);
        return new Promise(() => {});
      }),
    );
    const reason = { because: 'of this test' };
    await expect(near.request({ head: bytes() }, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const stop = new AbortController();
    const waiting = near.request({ head: bytes() }, { signal: stop.signal });
    waiting.catch(() => {});
    await asked;
    stop.abort(reason);
    await expect(waiting).rejects.toBe(reason);
  });

  test('request: a handler’s FED_ error arrives with its code, message and retryable', async () => {
    const { near, far } = await (await bench()).dial();
    far.onRequest(async () => {
      throw Object.assign(new Error('too early'), { code: 'FED_TEST', retryable: true });
    });
    await expect(near.request({ head: bytes() })).rejects.toMatchObject({
      name: 'RemoteError',
      code: 'FED_TEST',
      message: 'too early',
      retryable: true,
    });
  });

  test('request: any other error of a handler arrives without its message', async () => {
    const { near, far } = await (await bench()).dial();
    far.onRequest(() => {
      throw new Error('/home/ward-7/patients.csv is missing');
    });
    const error = await near.request({ head: bytes() }).catch((one: Error) => one);
    expect(error).toMatchObject({ name: 'RemoteError', code: 'FED_INTERNAL' });
    expect((error as Error).message).not.toContain('ward-7');
  });

  test('request: a peer that piles up requests is refused the 257th, which may be tried again', async () => {
    const { near, far } = await (await bench()).dial();
    const held: (() => void)[] = [];
    far.onRequest((packet) => new Promise((resolve) => held.push(() => resolve(packet))));
    const asked = Array.from({ length: 256 }, () => near.request({ head: bytes(1) }));
    await expect(near.request({ head: bytes(2) })).rejects.toMatchObject({
      name: 'RemoteError',
      code: 'FED_PROTOCOL_LIMIT',
      retryable: true,
    });
    for (const answer of held) answer();
    expect((await Promise.all(asked)).length).toBe(256);
  });

  test('notify: notifications arrive in the order of sending, also those sent before the handler was set', async () => {
    const { near, far } = await (await bench()).dial();
    for (let index = 0; index < 100; index++) near.notify({ head: bytes(index), body: patterned(index) });
    const seen: number[] = [];
    await new Promise<void>((resolve) => {
      far.onNotify(({ head }) => {
        seen.push(head[0] ?? -1);
        if (seen.length === 200) resolve();
      });
      for (let index = 100; index < 200; index++) near.notify({ head: bytes(index) });
    });
    expect(seen).toEqual(Array.from({ length: 200 }, (_, index) => index));
  });
}

function describeEnds(bench: () => Promise<Bench>): void {
  for (const closer of ['near', 'far'] as const) {
    test(`close: by the ${closer} end, both ends learn the reason and pending requests are rejected`, async () => {
      const ends = await (await bench()).dial();
      for (const end of [ends.near, ends.far]) end.onRequest(() => new Promise(() => {}));
      const pending = [ends.near.request({ head: bytes(1) }), ends.far.request({ head: bytes(2) })];
      const outcomes = Promise.allSettled(pending);
      await ends[closer].close('that will do');
      expect(await ends.near.closed).toBe('that will do');
      expect(await ends.far.closed).toBe('that will do');
      for (const outcome of await outcomes) {
        expect(outcome).toMatchObject({ status: 'rejected', reason: withCode('FED_TRANSPORT_CLOSED') });
      }
    });
  }

  test('close: what was sent before is still heard', async () => {
    const { near, far } = await (await bench()).dial();
    const seen: number[] = [];
    far.onNotify(({ head }) => seen.push(head[0] ?? -1));
    for (let index = 0; index < 20; index++) near.notify({ head: bytes(index), body: patterned(50_000) });
    await near.close('enough');
    await far.closed;
    expect(seen).toEqual(Array.from({ length: 20 }, (_, index) => index));
  });

  test('close: afterwards requests are rejected, notifications are dropped, and closing again is harmless', async () => {
    const { near, far } = await (await bench()).dial();
    await far.close('first');
    await near.closed;
    await expect(near.request({ head: bytes() })).rejects.toMatchObject(withCode('FED_TRANSPORT_CLOSED'));
    near.notify({ head: bytes() });
    await Promise.all([near.close('second'), far.close('third')]);
    expect(await far.closed).toBe('first');
    expect(await near.closed).toBe('first');
  });

  test('listener: closing it closes every link, and nobody can dial it any more', async () => {
    const { transport, listener, dial } = await bench();
    const ends = [await dial(), await dial(), await dial()];
    await listener.close();
    for (const { near, far } of ends) {
      expect(await far.closed).toBe('the listener was closed');
      expect(await near.closed).toBe('the listener was closed');
    }
    await expect(transport.connect(listener.url, pinOf(listener))).rejects.toMatchObject(
      withCode('FED_TRANSPORT_UNREACHABLE'),
    );
  });

  test('connect: an aborted signal’s reason comes back unwrapped', async () => {
    const { transport, listener } = await bench();
    const reason = new Error('not today');
    await expect(
      transport.connect(listener.url, { ...pinOf(listener), signal: AbortSignal.abort(reason) }),
    ).rejects.toBe(reason);
  });

  test('links: thirty at once do not mix up their replies, and one that ends leaves the others alone', async () => {
    const { dial } = await bench();
    const ends: Awaited<ReturnType<Bench['dial']>>[] = [];
    for (let index = 0; index < 30; index++) {
      const pair = await dial();
      pair.far.onRequest(async ({ head }) => ({ head: bytes(index, head[0] ?? 0) }));
      ends.push(pair);
    }
    expect(new Set(ends.flatMap(({ near, far }) => [near.id, far.id])).size).toBe(60);
    await ends[3]?.near.close();
    const living = ends.filter((_, index) => index !== 3);
    const replies = await Promise.all(living.map(({ near }) => near.request({ head: bytes(200) })));
    expect(replies.map(({ head }) => [...head])).toEqual(living.map((pair) => [ends.indexOf(pair), 200]));
  });
}

function pinOf({ fingerprint }: Listener): { fingerprint?: string } {
  return fingerprint === undefined ? {} : { fingerprint };
}

function bytes(...values: number[]): Uint8Array {
  return Uint8Array.from(values);
}

function reversed(values: Uint8Array): Uint8Array {
  return Uint8Array.from(values).reverse();
}

/** Bytes that repeat with the prime period 251, so that a shift by a power of two shows. */
function patterned(length: number): Uint8Array {
  const result = new Uint8Array(length);
  for (let index = 0; index < length; index++) result[index] = index % 251;
  return result;
}
