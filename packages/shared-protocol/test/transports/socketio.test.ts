import { once } from 'node:events';
import { createServer as createHttpServer, get } from 'node:http';
import { get as getSecurely } from 'node:https';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, connect as tlsConnect } from 'node:tls';
import { createCertificate, type Link } from '@tributary/shared-protocol';
import { createSocketioTransport, SOCKETIO_PATH } from '@tributary/shared-protocol/socketio';
import { testTransport } from '@tributary/testkit/transport';
import { io } from 'socket.io-client';
import { afterEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';

const certificate = await createCertificate(['127.0.0.1', 'localhost']);

testTransport({ name: 'socketio', create: () => createSocketioTransport({ tls: false }) });
testTransport({ name: 'socketio over TLS', create: () => createSocketioTransport({ tls: certificate }) });

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function listeningPort(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closing.push(() => server.close());
  return (server.address() as AddressInfo).port;
}

/** A byte-for-byte proxy that counts connections and can let all of them go silent or die. */
async function proxyTo(
  port: number,
): Promise<{ port: number; sockets: Socket[]; cut(): void; deafen(): void; silence(): void }> {
  const sockets: Socket[] = [];
  const pairs: [Socket, Socket][] = [];
  const server = createServer((client) => {
    const upstream = connect(port, '127.0.0.1');
    client.pipe(upstream).pipe(client);
    for (const socket of [client, upstream]) socket.on('error', () => {});
    client.on('close', () => upstream.destroy());
    upstream.on('close', () => client.destroy());
    sockets.push(client);
    pairs.push([client, upstream]);
  });
  closing.push(() => {
    for (const socket of sockets) socket.destroy();
  });
  return {
    port: await listeningPort(server),
    sockets,
    cut() {
      for (const socket of sockets) socket.resetAndDestroy();
    },
    deafen() {
      for (const [client, upstream] of pairs) upstream.unpipe(client).pause();
    },
    silence() {
      for (const [client, upstream] of pairs) {
        client.unpipe(upstream).pause();
        upstream.unpipe(client).pause();
      }
    },
  };
}

describe('socketio: dialling', () => {
  test('a wrong fingerprint names both, and the server never sees a byte of HTTP', async () => {
    const heard: Buffer[] = [];
    const ended: Promise<unknown>[] = [];
    const server = createTlsServer({ key: certificate.key, cert: certificate.cert }, (socket) => {
      socket.on('data', (data) => heard.push(data));
      socket.on('error', () => {});
    });
    server.on('connection', (socket) => ended.push(new Promise((resolve) => socket.on('close', resolve))));
    server.on('tlsClientError', () => {});
    const port = await listeningPort(server);
    const expected = 'a'.repeat(64);
    await expect(
      createSocketioTransport().connect(`https://127.0.0.1:${port}`, { fingerprint: expected }),
    ).rejects.toMatchObject({
      code: 'FED_TRANSPORT_FINGERPRINT',
      message: expect.stringMatching(new RegExp(`${expected}.*${certificate.fingerprint}`)),
    });
    // Someone else's byte, to show that the server would have heard.
    const witness = tlsConnect({ host: '127.0.0.1', port, rejectUnauthorized: false });
    await once(witness, 'secureConnect');
    witness.end('w');
    await Promise.all(ended);
    expect(ended.length).toBe(2);
    expect(Buffer.concat(heard).toString()).toBe('w');
  });

  test('a pin on a plain address is refused without a connection', async () => {
    let connections = 0;
    const port = await listeningPort(createServer(() => connections++));
    await expect(
      createSocketioTransport().connect(`http://127.0.0.1:${port}`, { fingerprint: certificate.fingerprint }),
    ).rejects.toMatchObject({ code: 'FED_TRANSPORT_FINGERPRINT' });
    expect(connections).toBe(0);
  });

  test('a self-signed certificate without a pin is not trusted', async () => {
    const listener = await createSocketioTransport({ tls: certificate }).listen(() => {});
    closing.push(() => listener.close());
    await expect(createSocketioTransport().connect(listener.url)).rejects.toMatchObject({
      code: 'FED_TRANSPORT_UNREACHABLE',
      message: expect.stringContaining('DEPTH_ZERO_SELF_SIGNED_CERT'),
    });
  });

  test('one link is one TCP connection: what was verified is what is used', async () => {
    const transport = createSocketioTransport({ tls: certificate });
    const listener = await transport.listen((link) => link.onRequest(async (packet) => packet));
    closing.push(() => listener.close());
    const proxy = await proxyTo(Number(new URL(listener.url).port));
    const link = await transport.connect(`https://127.0.0.1:${proxy.port}`, {
      fingerprint: certificate.fingerprint,
    });
    await link.request({ head: new Uint8Array(1) });
    expect(proxy.sockets.length).toBe(1);
  });

  test('an address where nobody listens is FED_TRANSPORT_UNREACHABLE, naming it', async () => {
    const server = createServer();
    const port = await listeningPort(server);
    server.close();
    await once(server, 'close');
    await expect(createSocketioTransport().connect(`http://127.0.0.1:${port}`)).rejects.toMatchObject({
      code: 'FED_TRANSPORT_UNREACHABLE',
      message: expect.stringContaining(`http://127.0.0.1:${port}: nobody listens there`),
    });
  });

  test('a host name that does not exist is FED_TRANSPORT_UNREACHABLE', async () => {
    // The top-level domain .invalid never resolves (RFC 2606).
    await expect(createSocketioTransport().connect('http://coordinator.invalid:7700')).rejects.toMatchObject({
      code: 'FED_TRANSPORT_UNREACHABLE',
    });
  });

  test('a server that accepts and stays silent is given up after timeoutMs', async () => {
    const port = await listeningPort(createServer((socket) => void socket.on('error', () => {})));
    await expect(
      createSocketioTransport().connect(`http://127.0.0.1:${port}`, { timeoutMs: 50 }),
    ).rejects.toMatchObject({
      code: 'FED_TRANSPORT_UNREACHABLE',
      message: expect.stringContaining('no answer in 50 ms'),
    });
  });

  test('a web server that is no coordinator is FED_TRANSPORT_UNREACHABLE with its answer', async () => {
    const port = await listeningPort(createHttpServer((_, response) => response.writeHead(404).end()));
    await expect(createSocketioTransport().connect(`http://127.0.0.1:${port}`)).rejects.toMatchObject({
      code: 'FED_TRANSPORT_UNREACHABLE',
      message: expect.stringContaining('404'),
    });
  });

  test('an abort while dialling rejects with the reason itself', async () => {
    const reason = new Error('changed my mind');
    const stop = new AbortController();
    const port = await listeningPort(
      createServer((socket) => {
        socket.on('error', () => {});
        stop.abort(reason);
      }),
    );
    await expect(
      createSocketioTransport().connect(`http://127.0.0.1:${port}`, { signal: stop.signal }),
    ).rejects.toBe(reason);
  });

  for (const address of ['not an address', 'ftp://127.0.0.1:1', '']) {
    test(`"${address}" is refused as an address`, async () => {
      await expect(createSocketioTransport().connect(address)).rejects.toMatchObject({
        code: 'FED_TRANSPORT_UNREACHABLE',
      });
    });
  }
});

describe('socketio: listening', () => {
  test('plain HTTP has to be asked for', async () => {
    await expect(createSocketioTransport().listen(() => {})).rejects.toThrow(TypeError);
  });

  test('a port in use is FED_TRANSPORT_ADDRESS_IN_USE, naming host and port', async () => {
    const port = await listeningPort(createServer());
    await expect(createSocketioTransport({ port, tls: false }).listen(() => {})).rejects.toMatchObject({
      code: 'FED_TRANSPORT_ADDRESS_IN_USE',
      message: expect.stringContaining(`127.0.0.1:${port}`),
    });
  });

  test('the fingerprint is that of the certificate, and a plain listener has none', async () => {
    const secure = await createSocketioTransport({ tls: certificate }).listen(() => {});
    const plain = await createSocketioTransport({ tls: false }).listen(() => {});
    closing.push(
      () => secure.close(),
      () => plain.close(),
    );
    expect(secure.fingerprint).toBe(certificate.fingerprint);
    expect(secure.url).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
    expect(plain.fingerprint).toBeUndefined();
  });

  test('a browser that looks in gets a short answer', async () => {
    const listener = await createSocketioTransport({ tls: false }).listen(() => {});
    closing.push(() => listener.close());
    const [response] = await once(get(listener.url), 'response');
    response.resume();
    expect(response.statusCode).toBe(404);
  });

  test('GET /health is answered, also over TLS, and other methods are not', async () => {
    const listener = await createSocketioTransport({ tls: certificate }).listen(() => {});
    closing.push(() => listener.close());
    const ask = async (path: string, method: string): Promise<number | undefined> => {
      const url = new URL(path, listener.url);
      const [response] = await once(getSecurely(url, { method, rejectUnauthorized: false }), 'response');
      response.resume();
      return response.statusCode;
    };
    expect(await ask('/health', 'GET')).toBe(200);
    expect(await ask('/health', 'HEAD')).toBe(200);
    expect(await ask('/health', 'DELETE')).toBe(404);
    expect(await ask('/health/x', 'GET')).toBe(404);
  });

  test('closing does not wait for strangers that are connected but are no link', async () => {
    const listener = await createSocketioTransport({ tls: false }).listen(() => {});
    const stranger = connect(Number(new URL(listener.url).port), '127.0.0.1');
    stranger.on('error', () => {});
    await once(stranger, 'connect');
    // One that upgraded but never joined, and so is no link.
    const lurker = new WebSocket(
      `${listener.url.replace('http', 'ws')}${SOCKETIO_PATH}?EIO=4&transport=websocket`,
    );
    lurker.on('error', () => {});
    await once(lurker, 'message');
    await Promise.all([listener.close(), once(lurker, 'close')]);
    stranger.destroy();
  });
});

describe('socketio: ends that nobody wished for', () => {
  async function throughProxy(options: { pingIntervalMs?: number; pingTimeoutMs?: number } = {}) {
    const transport = createSocketioTransport({ tls: false, ...options });
    let arrived: (link: Link) => void = () => {};
    const arrival = new Promise<Link>((resolve) => {
      arrived = resolve;
    });
    const listener = await transport.listen(arrived);
    closing.push(() => listener.close());
    const proxy = await proxyTo(Number(new URL(listener.url).port));
    const near = await transport.connect(`http://127.0.0.1:${proxy.port}`);
    closing.push(() => near.close());
    return { proxy, near, far: await arrival, listener };
  }

  test('a connection that is reset closes both ends and rejects what was pending', async () => {
    const { proxy, near, far } = await throughProxy();
    far.onRequest(() => new Promise(() => {}));
    const pending = near.request({ head: new Uint8Array(1) });
    proxy.cut();
    await expect(pending).rejects.toMatchObject({ code: 'FED_TRANSPORT_CLOSED' });
    expect(await far.closed).toMatch(/^the connection (was lost|failed)$/);
    expect(await near.closed).toMatch(/^the connection (was lost|failed)$/);
  });

  test('a peer that falls silent without closing is noticed by both ends', async () => {
    const { proxy, near, far } = await throughProxy({ pingIntervalMs: 200, pingTimeoutMs: 400 });
    proxy.silence();
    expect(await far.closed).toBe('no sign of life from the other end');
    expect(await near.closed).toBe('no sign of life from the other end');
  });

  test('a peer that asks but does not read is cut off before its replies fill the memory', async () => {
    const { proxy, near, far } = await throughProxy();
    const body = new Uint8Array(8 * 1024 * 1024);
    far.onRequest(async ({ head }) => ({ head, body }));
    proxy.deafen();
    // 40 replies of 8 MiB are 320 MiB; 128 MiB may wait.
    for (let index = 0; index < 40; index++) near.request({ head: Uint8Array.of(index) }).catch(() => {});
    expect(await far.closed).toBe('the other end reads too slowly');
  });

  test('a stranger that sends what is no packet is cut off', async () => {
    const { listener } = await throughProxy();
    const socket = io(listener.url, { path: SOCKETIO_PATH, transports: ['websocket'], reconnection: false });
    closing.push(() => socket.disconnect());
    await new Promise<void>((resolve) => socket.on('connect', resolve));
    const gone = new Promise((resolve) => socket.on('disconnect', resolve));
    socket.emit('request', { head: 'text' }, () => {});
    expect(await gone).toMatch(/^transport/);
  });

  test('a stranger that sends more than the limit is cut off', async () => {
    const transport = createSocketioTransport({ tls: false, maxPayloadBytes: 10_000 });
    let requests = 0;
    const listener = await transport.listen((link) =>
      link.onRequest(async (packet) => {
        requests++;
        return packet;
      }),
    );
    closing.push(() => listener.close());
    const socket = io(listener.url, { path: SOCKETIO_PATH, transports: ['websocket'], reconnection: false });
    closing.push(() => socket.disconnect());
    await new Promise<void>((resolve) => socket.on('connect', resolve));
    const gone = new Promise((resolve) => socket.on('disconnect', resolve));
    socket.emit('request', new Uint8Array(10_001), () => {});
    expect(await gone).toMatch(/^transport/);
    expect(requests).toBe(0);
  });

  test('a plain socket.io client is understood: acknowledgements are the replies', async () => {
    const listener = await createSocketioTransport({ tls: false }).listen((link) =>
      link.onRequest(async ({ head, body }) => ({ head: body ?? head, body: head })),
    );
    closing.push(() => listener.close());
    const socket = io(listener.url, { path: SOCKETIO_PATH, transports: ['websocket'], reconnection: false });
    closing.push(() => socket.disconnect());
    const reply = (await socket.emitWithAck('request', Buffer.from('head'), Buffer.from('body'))) as Buffer;
    expect(reply.toString()).toBe('body');
  });
});
