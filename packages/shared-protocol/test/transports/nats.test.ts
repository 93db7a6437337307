import { headers } from '@nats-io/nats-core';
import { createUser } from '@nats-io/nkeys';
import { connect as connectNats, nkeyAuthenticator } from '@nats-io/transport-node';
import { createCertificate, type Link, type Transport } from '@tributary/shared-protocol';
import { createNatsTransport, type NatsTransportOptions } from '@tributary/shared-protocol/nats';
import { once, withCode } from '@tributary/testkit';
import { type NatsServer, natsServerMissing, startNatsServer } from '@tributary/testkit/nats-server';
import { testTransport } from '@tributary/testkit/transport';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';

const missing = natsServerMissing();
if (missing !== undefined) test.skip(`transport nats: ${missing}`, () => {});

const certificate = await createCertificate(['127.0.0.1', 'localhost']);
const TLS_CONFIG = 'tls { cert_file: "cert.pem", key_file: "key.pem" }';
const TLS_FILES = { 'cert.pem': certificate.cert, 'key.pem': certificate.key };

/** A user of the server, with the permissions that a coordinator or a site of the federation `wards` has. */
function user(role: 'coordinator' | 'site'): { node: string; seed: string; config: string } {
  const pair = createUser();
  const node = pair.getPublicKey();
  const may =
    role === 'coordinator'
      ? 'publish: "wards.>", subscribe: "wards.>"'
      : `publish: ["wards.hello.${node}", "wards.up.${node}.>"], subscribe: "wards.down.${node}.>"`;
  const seed = new TextDecoder().decode(pair.getSeed());
  return { node, seed, config: `{ nkey: ${node}, permissions: { ${may} } }` };
}

describe.skipIf(missing !== undefined)('nats', () => {
  let server: NatsServer;
  let secured: NatsServer;
  const lead = user('coordinator');
  const sites = [user('site'), user('site')] as const;
  let prefixes = 0;
  const fresh = () => `nats://127.0.0.1:${server.port}/test-${prefixes++}`;
  beforeAll(async () => {
    server = await startNatsServer();
    secured = await startNatsServer({
      config: `${TLS_CONFIG}\nauthorization { users: [ ${[lead, ...sites].map((one) => one.config).join('\n')} ] }`,
      files: TLS_FILES,
    });
  });
  const closing: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
  });
  afterAll(async () => {
    await server.stop();
    await secured.stop();
  });

  testTransport({ name: 'nats', create: () => createNatsTransport({ url: fresh() }) });
  // A body of 8 MiB is then 128 messages, and a chunk is what one of them holds.
  describe('with a small max_payload', () => {
    let narrow: NatsServer;
    beforeAll(async () => {
      narrow = await startNatsServer({ config: 'max_payload: 65536' });
    });
    afterAll(() => narrow.stop());
    testTransport({
      name: 'nats, 64 KiB a message',
      create: () => createNatsTransport({ url: `nats://127.0.0.1:${narrow.port}/narrow-${prefixes++}` }),
    });
  });

  const wards = () => `tls://127.0.0.1:${secured.port}/wards`;
  const asLead = (more: NatsTransportOptions = {}) =>
    createNatsTransport({
      url: wards(),
      credentials: { nkeySeed: lead.seed },
      ca: certificate.cert,
      ...more,
    });
  const asSite = (index: 0 | 1) => createNatsTransport({ credentials: { nkeySeed: sites[index].seed } });

  async function listening(transport: Transport, onLink: (link: Link) => void = () => {}) {
    const listener = await transport.listen(onLink);
    closing.push(() => listener.close());
    return listener;
  }

  test('TLS and keys: a site that knows only the invite’s fingerprint and its own key gets a link', async () => {
    let far: Link | undefined;
    const listener = await listening(asLead(), (link) => {
      far = link;
      link.onRequest(async (packet) => packet);
    });
    expect(listener.fingerprint).toBe(certificate.fingerprint);
    const near = await asSite(0).connect(listener.url, { fingerprint: certificate.fingerprint });
    closing.push(() => near.close());
    expect([...(await near.request({ head: Uint8Array.of(5) })).head]).toEqual([5]);
    // The server vouches for the name: nobody else may publish under it.
    expect(far?.remoteAddress).toContain(sites[0].node);
  });

  test('TLS: another certificate than the pinned one is refused before anything is sent', async () => {
    const listener = await listening(asLead());
    await expect(asSite(0).connect(listener.url, { fingerprint: 'ab'.repeat(32) })).rejects.toMatchObject({
      ...withCode('FED_TRANSPORT_FINGERPRINT'),
      message: expect.stringContaining(certificate.fingerprint),
    });
  });

  test('TLS: without a pin and without its authority the certificate is not trusted', async () => {
    await expect(asSite(0).connect(wards())).rejects.toMatchObject({
      ...withCode('FED_TRANSPORT_UNREACHABLE'),
      message: expect.stringContaining('authority'),
    });
  });

  test('TLS: a pin and an address without TLS contradict each other', async () => {
    await expect(
      createNatsTransport().connect(fresh(), { fingerprint: certificate.fingerprint }),
    ).rejects.toMatchObject(withCode('FED_TRANSPORT_FINGERPRINT'));
  });

  test('keys: a node that the server does not know is told so, at both ends', async () => {
    const stranger = { credentials: { nkeySeed: user('site').seed } };
    const pin = { fingerprint: certificate.fingerprint };
    await expect(createNatsTransport(stranger).connect(wards(), pin)).rejects.toMatchObject(
      withCode('FED_TRANSPORT_FORBIDDEN'),
    );
    await expect(createNatsTransport().connect(wards(), pin)).rejects.toMatchObject(
      withCode('FED_TRANSPORT_FORBIDDEN'),
    );
    await expect(asLead(stranger).listen(() => {})).rejects.toMatchObject(
      withCode('FED_TRANSPORT_FORBIDDEN'),
    );
  });

  test('keys: a file without a seed in it is refused before anything is dialled', async () => {
    const transport = createNatsTransport({ credentials: { nkeySeed: 'not a seed' } });
    await expect(transport.connect(wards())).rejects.toMatchObject({
      ...withCode('FED_TRANSPORT_FORBIDDEN'),
      message: expect.stringContaining('SU'),
    });
  });

  test('permissions: a site that publishes or reads under another’s name is refused by the server', async () => {
    let links = 0;
    const listener = await listening(asLead(), () => {
      links += 1;
    });
    const hostile = await connectNats({
      servers: `127.0.0.1:${secured.port}`,
      tls: { ca: certificate.cert },
      authenticator: nkeyAuthenticator(new TextEncoder().encode(sites[1].seed)),
    });
    closing.push(() => hostile.close());
    const violations: string[] = [];
    const all = once<void>((resolve) => {
      void (async () => {
        for await (const status of hostile.status()) {
          if (status.type !== 'error') continue;
          violations.push(status.error.message);
          if (violations.length === 3) resolve();
        }
      })();
    });
    const victim = await asSite(0).connect(listener.url, { fingerprint: certificate.fingerprint });
    closing.push(() => victim.close());
    expect(links).toBe(1);
    hostile.publish(`wards.hello.${sites[0].node}`, JSON.stringify({ link: '0'.repeat(24) }));
    hostile.publish(`wards.up.${sites[0].node}.${'0'.repeat(24)}`, Uint8Array.of(0));
    hostile.subscribe(`wards.down.${sites[0].node}.>`, { callback: () => {} });
    await all;
    expect(violations.join('\n')).toMatch(/publish.*hello[\s\S]*publish.*up[\s\S]*subscription.*down/i);
    expect(links).toBe(1);
  });

  test('permissions: a node without any is told which it lacks', async () => {
    const bare = createUser();
    const one = await startNatsServer({
      config: `authorization { users: [ { nkey: ${bare.getPublicKey()}, permissions: { publish: "other.>", subscribe: "other.>" } } ] }`,
    });
    closing.push(() => one.stop());
    const transport = createNatsTransport({
      credentials: { nkeySeed: new TextDecoder().decode(bare.getSeed()) },
    });
    await expect(transport.connect(`nats://127.0.0.1:${one.port}/wards`)).rejects.toMatchObject({
      ...withCode('FED_TRANSPORT_FORBIDDEN'),
      message: expect.stringContaining(bare.getPublicKey()),
    });
  });

  test('listen: a second coordinator on the same prefix is refused', async () => {
    const url = fresh();
    await listening(createNatsTransport({ url }));
    await expect(createNatsTransport({ url }).listen(() => {})).rejects.toMatchObject(
      withCode('FED_TRANSPORT_ADDRESS_IN_USE'),
    );
  });

  test('connect: a server without a coordinator says so', async () => {
    await expect(createNatsTransport().connect(fresh())).rejects.toMatchObject({
      ...withCode('FED_TRANSPORT_UNREACHABLE'),
      message: expect.stringContaining('no coordinator'),
    });
  });

  test.each(['http://127.0.0.1:4222/a', 'nats://127.0.0.1:4222/a.b', 'nats://127.0.0.1:4222/a/b', 'hello'])(
    'connect: %s is no address of a federation',
    async (url) => {
      await expect(createNatsTransport().connect(url)).rejects.toMatchObject(
        withCode('FED_TRANSPORT_UNREACHABLE'),
      );
    },
  );

  test('server: when it dies, both ends of every link learn it; once it is back, the same listener takes links', async () => {
    const own = await startNatsServer();
    closing.push(() => own.stop());
    const far: Link[] = [];
    const listener = await listening(
      createNatsTransport({ url: `nats://127.0.0.1:${own.port}/own` }),
      (link) => {
        far.push(link);
        link.onRequest(async (packet) => packet);
      },
    );
    const near = await createNatsTransport().connect(listener.url);
    await own.restart();
    expect(await near.closed).toContain('connection');
    expect(await far[0]?.closed).toContain('NATS server was lost');
    const again = await dialUntilThere(listener.url);
    closing.push(() => again.close());
    expect([...(await again.request({ head: Uint8Array.of(7) })).head]).toEqual([7]);
  });

  test('links: a message that was lost ends the link, and so does one that makes no sense', async () => {
    const url = fresh();
    const far: Link[] = [];
    const listener = await listening(createNatsTransport({ url }), (link) => far.push(link));
    const meddler = await connectNats({ servers: `127.0.0.1:${server.port}` });
    closing.push(() => meddler.close());
    const seen: string[] = [];
    meddler.subscribe(`${url.split('/').at(-1)}.up.>`, {
      callback: (_, { subject }) => {
        if (!seen.includes(subject)) seen.push(subject);
      },
    });
    await meddler.flush();
    for (const [label, bytes, reason] of [
      ['notify 9 0 3', 3, 'messages were lost on the way'], // 1 would be the next
      ['notify 1 0 3', 4, 'the other end sent a frame that is none'],
      ['more 1', 3, 'the other end sent a frame that is none'],
      ['request 1', 3, 'the other end sent a frame that is none'],
      ['shout 1 0 3', 3, 'the other end sent a frame that is none'],
      ['notify 1 0 -3', 3, 'the other end sent a frame that is none'],
      [undefined, 3, 'the other end sent a frame that is none'],
      ['notify 1 0 9000000000000000', 3, 'the other end sent more than this link carries'],
    ] as const) {
      const near = await createNatsTransport().connect(listener.url);
      const link = far.at(-1);
      const arrived = once<void>((resolve) => link?.onNotify(() => resolve()));
      near.notify({ head: Uint8Array.of(1) });
      await arrived;
      await meddler.flush();
      const header = headers();
      if (label !== undefined) header.set('Frame', label);
      meddler.publish(seen.at(-1) ?? '', new Uint8Array(bytes), { headers: header });
      expect(await link?.closed).toBe(reason);
      expect(await near.closed).toBe(reason);
    }
  });

  test('links: an end that has gone silent is given up', async () => {
    const url = fresh();
    const far: Link[] = [];
    // The coordinator sends signs of life too rarely for what the site expects.
    await listening(createNatsTransport({ url, pingIntervalMs: 60_000 }), (link) => far.push(link));
    const near = await createNatsTransport({ pingIntervalMs: 50, pingTimeoutMs: 100 }).connect(url);
    expect(await near.closed).toBe('no sign of life from the other end');
    expect(await far[0]?.closed).toBe('no sign of life from the other end');
  });

  test('links: one that the coordinator has forgotten is told so', async () => {
    const url = fresh();
    const first = await createNatsTransport({ url }).listen(() => {});
    const near = await createNatsTransport().connect(url);
    const [, , prefix] = /(.*\/)(.*)/.exec(url) ?? [];
    const stranger = await connectNats({ servers: `127.0.0.1:${server.port}` });
    closing.push(
      () => stranger.close(),
      () => first.close(),
      () => near.close(),
    );
    const told = once<Uint8Array>((resolve) => {
      stranger.subscribe(`${prefix}.down.somebody.token`, { callback: (_, { data }) => resolve(data) });
    });
    await stranger.flush();
    stranger.publish(`${prefix}.up.somebody.token`, new Uint8Array(20));
    expect(Buffer.from(await told).toString('latin1')).toContain('does not know this link');
  });
});

/** As an agent does: dials again until the server and the coordinator are back. */
async function dialUntilThere(url: string): Promise<Link> {
  for (;;) {
    try {
      return await createNatsTransport().connect(url, { timeoutMs: 1000 });
    } catch (error) {
      if ((error as { code?: string }).code !== 'FED_TRANSPORT_UNREACHABLE') throw error;
    }
  }
}
