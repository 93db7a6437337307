/** Other keys for sites, and another certificate for the coordinator, in a run that goes on. */
import {
  createCertificate,
  createSigningKey,
  decodeInvite,
  fingerprintOf,
  rekeyStatement,
} from '@tributary/shared-protocol';
import { createSocketioTransport } from '@tributary/shared-protocol/socketio';
import { keyFrom, type ScriptedWorker } from '@tributary/testkit';
import { describe, expect, it } from 'vitest';
import { verifyRun } from '../../src/index.ts';
import { checkMeaning } from '../../src/verify/meaning.ts';
import { adds, records, startRun, type TestRun } from '../federation.ts';

describe('a site’s change of key', () => {
  /** Changes the key of `site` to the one that is made from `credential`. */
  async function rekey(run: TestRun, site: ScriptedWorker, credential: string, signer = keyFrom(credential)) {
    const { runId } = run.coordinator;
    const next = keyFrom(credential).publicKey;
    const parts = { name: site.name, former: site.key.publicKey, next };
    const confirmation = signer.sign(rekeyStatement({ runId, session: site.session }, parts));
    return await site.channel.call({ type: 'rekey', publicKey: next, confirmation }, 'ok');
  }

  it('lets it in with the new one and not with the former, and what it signs then verifies', async () => {
    const run = await startRun({ rounds: 2, evaluation: { sites: false } });
    const first = await run.join('a', { train: adds(1) });
    await rekey(run, first, 'new');
    await first.close();
    await expect(run.join('a', { credential: first.credential })).rejects.toMatchObject({
      code: 'FED_JOIN_NAME_TAKEN',
    });
    const { welcome } = await run.join('a', { credential: 'new', train: adds(1) });
    expect(welcome.clientId).toBe(first.welcome.clientId);
    await run.join('b', { train: adds(1) });
    await run.coordinator.run();
    await run.coordinator.close();
    expect(records(run).filter(({ type }) => type === 'rekeyed')).toMatchObject([
      { name: 'a', key: keyFrom('new').publicKey, former: first.key.publicKey },
    ]);
    expect(verifyRun(run.runDir)).toMatchObject({ ok: true, rounds: 2, signedUpdates: 4 });
  });

  it('is found in the log when the site did not want it', async () => {
    const run = await startRun();
    const site = await run.join('a');
    await rekey(run, site, 'new');
    const { logPublicKey } = run.coordinator;
    expect(checkMeaning(records(run), logPublicKey)).toEqual([]);
    const says = (change: object) =>
      checkMeaning(
        records(run).map((r) => (r.type === 'rekeyed' ? { ...r, ...change } : r)),
        logPublicKey,
      ).map(({ what }) => what);
    const stolen = { key: createSigningKey().publicKey };
    expect(says(stolen)).toEqual(['gives "a" another key without the signatures of both']);
    expect(says({ former: createSigningKey().publicKey })).toEqual([
      'gives "a" another key in place of one that it does not have',
    ]);
    expect(says({ key: site.key.publicKey })[0]).toContain('which "a" has or had');
  });

  it('needs the signature of the new key, and a key that no site has or had', async () => {
    const run = await startRun();
    const [a, b] = [await run.join('a'), await run.join('b')];
    await expect(rekey(run, a, 'new', createSigningKey())).rejects.toMatchObject({
      code: 'FED_JOIN_SIGNATURE',
    });
    await expect(rekey(run, a, b.credential)).rejects.toMatchObject({ code: 'FED_JOIN_KEY_TAKEN' });
    await rekey(run, b, 'new');
    await expect(rekey(run, a, b.credential)).rejects.toMatchObject({ code: 'FED_JOIN_KEY_TAKEN' });
    expect(records(run).filter(({ type }) => type === 'rekeyed')).toHaveLength(1);
  });

  it('does not help a site that is expelled: neither of its keys is let in', async () => {
    const run = await startRun();
    const site = await run.join('a');
    await rekey(run, site, 'new');
    run.coordinator.revoke('a', 'x');
    for (const credential of [site.credential, 'new'])
      await expect(run.join('c', { credential, invite: run.coordinator.invite() })).rejects.toMatchObject({
        code: 'FED_JOIN_REVOKED',
      });
  });
});

describe('another certificate', () => {
  it('is shown to who dials from then on, is in new invites and in the log, and leaves links alone', async () => {
    const tls = await createCertificate(['127.0.0.1']);
    const transport = createSocketioTransport({ host: '127.0.0.1', port: 0, tls });
    const next = await createCertificate(['127.0.0.1']);
    const run = await startRun(
      { rounds: 1, evaluation: { sites: false } },
      { transport, renewCertificate: async () => next },
    );
    const old = run.coordinator.invite();
    const site = await run.join('a', { train: adds(1) });
    expect(await run.coordinator.rotateCertificate()).toBe(fingerprintOf(next.cert));
    await expect(run.join('b', { invite: old })).rejects.toMatchObject({
      code: 'FED_TRANSPORT_FINGERPRINT',
      fingerprint: next.fingerprint,
    });
    const invite = run.coordinator.invite();
    expect(decodeInvite(invite).fingerprint).toBe(next.fingerprint);
    await run.join('b', { invite, fingerprint: next.fingerprint, train: adds(1) });
    // The first link, opened under the old certificate, still works: both updates come.
    await run.coordinator.run();
    await site.goodbye;
    await run.coordinator.close();
    expect(records(run).filter(({ type }) => type === 'certificate')).toMatchObject([
      { fingerprint: tls.fingerprint },
      { fingerprint: next.fingerprint },
    ]);
    expect(verifyRun(run.runDir)).toMatchObject({ ok: true, rounds: 1 });
  });

  it('is refused where the transport has none of its own', async () => {
    const run = await startRun();
    await expect(run.coordinator.rotateCertificate()).rejects.toMatchObject({ code: 'FED_RUN_CERTIFICATE' });
  });
});
