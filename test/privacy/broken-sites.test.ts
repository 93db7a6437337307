/**
 * A site that is broken, or lies, among four honest agents: whatever it sends in a secure sum, the others' round is
 * committed with the mean of whom the log names.
 */
import { randomBytes } from 'node:crypto';
import { verifyRun } from '@tributary/coordinator';
import { SecaggSite, settingsOfRound } from '@tributary/privacy';
import {
  bytesToText,
  keysToBytes,
  keysToText,
  type Message,
  type MessageOf,
  type Outgoing,
  textToBytes,
} from '@tributary/shared-protocol';
import { keyFrom, type ScriptedWorker, type SecaggStage, startScriptedWorker } from '@tributary/testkit';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { changes, commitsOf, memoryTransport, PARAMETERS, startMasked, tapped } from './masked-federation.ts';

const HONEST = ['a', 'b', 'c', 'd'];
const BROKEN = 'z';
/** Of its own update, which honest sites' are not. */
const WRONG = 0.6;

afterEach(() => {
  vi.useRealTimers();
});

describe('a secure sum', () => {
  test('has the update of a site that plays its part, as any other’s', async () => {
    const { run, names } = await play({});
    expect(names).toEqual([...HONEST, BROKEN]);
    // (4 * 0.1 + 0.6) / 5
    for (const change of changes(run, 1)) expect(change).toBeCloseTo(0.2, 4);
  });

  test.each<[string, Bend, string | undefined]>([
    ['keys that are not signed', { advertised: spoil('signature') }, 'FED_PRIVACY_SECAGG_SIGNATURE'],
    ['no envelopes', { shared: () => ({ type: 'shared', envelopes: [] }) }, 'FED_PRIVACY_SECAGG_MESSAGE'],
    ['an answer to another stage', { shared: () => ({ type: 'ok' }) }, 'FED_PROTOCOL_MESSAGE_UNEXPECTED'],
    ['a masked update that is too short', { packed: (bytes) => bytes.slice(1) }, 'FED_UPDATE_SIZE'],
    [
      'a count beside its masked update',
      { offer: (offer) => ({ ...offer, numExamples: 3 }) },
      'FED_UPDATE_SIZE',
    ],
    [
      'metrics beside its masked update',
      { offer: (offer) => ({ ...offer, metrics: { loss: 1 } }) },
      'FED_UPDATE_SIZE',
    ],
    ['its update without a mask', { offer: ({ attempt: _, ...offer }) => offer }, 'FED_UPDATE_UNMASKED'],
    ['other bytes than it promised', { serve: () => randomBytes(64) }, 'FED_PROTOCOL_'],
    // The last value ends within a byte.
    [
      'bits that belong to no value',
      { packed: (bytes) => ending(bytes, 0xff) },
      'FED_PRIVACY_SECAGG_MESSAGE',
    ],
    ['useless envelopes for everybody', { shared: uselessEnvelopes(HONEST) }, undefined],
  ])('goes on without a site that sends %s', async (_, bend, code) => {
    const { run, names, failures } = await play(bend);
    expect(names).toEqual(HONEST);
    for (const change of changes(run, 1)) expect(change).toBeCloseTo(0.1, 4);
    if (code) expect(failures).toEqual([[BROKEN, expect.stringMatching(code)]]);
  });

  test('goes on without the one site that could not read what it was sent', async () => {
    const { run, names, failures } = await play({ shared: uselessEnvelopes(['b']) });
    expect(names).toEqual(['a', 'c', 'd', BROKEN]);
    expect(failures).toEqual([['b', 'FED_PRIVACY_SECAGG_ENVELOPE']]);
    // (3 * 0.1 + 0.6) / 4
    for (const change of changes(run, 1)) expect(change).toBeCloseTo(0.225, 4);
  });

  test.each<[string, Bend]>([
    ['a signature of nothing', { agreed: spoil('signature') }],
    ['shares that are wrong', { unmasked: wrongShares }],
    ['no shares', { unmasked: () => ({ type: 'unmasked', seedShares: [], maskKeyShares: [] }) }],
  ])(
    'whose masked updates are all there comes out without a site that sends %s afterwards',
    async (_, bend) => {
      const { run, names } = await play(bend);
      expect(names).toEqual([...HONEST, BROKEN]);
      for (const change of changes(run, 1)) expect(change).toBeCloseTo(0.2, 4);
    },
  );

  test.each<SecaggStage['type']>(['advertise', 'share', 'agree', 'unmask'])(
    'goes on without a site that never answers "%s"',
    async (stage) => {
      const { run, names } = await play({ silentAt: stage });
      const counts = stage === 'agree' || stage === 'unmask';
      expect(names).toEqual(counts ? [...HONEST, BROKEN] : HONEST);
      for (const change of changes(run, 1)) expect(change).toBeCloseTo(counts ? 0.2 : 0.1, 4);
    },
  );

  test('goes on without a site that takes its time to mask for ever', async () => {
    const { names, failures } = await play({ packed: () => undefined, silentAt: 'mask' });
    expect(names).toEqual(HONEST);
    expect(failures).toEqual([[BROKEN, 'FED_UPDATE_LATE']]);
  });

  test('of noise is known for what it is, unmasks nobody, and ends the run with the reason', async () => {
    const { run, failures, end } = await play({ packed: (bytes) => ending(randomBytes(bytes.length), 0) });
    expect(end).toMatchObject({ reason: 'failed', rounds: 0 });
    expect(end.message).toMatch(/sent what is no masked update; nobody can tell which/);
    // Nobody can tell who: all that the coordinator has of each is noise.
    expect(failures).toEqual([]);
    const sums = run.log().filter((record) => record.type === 'survivors');
    expect(new Set(sums.map(({ names }) => names.join()))).toEqual(new Set(['a,b,c,d,z']));
  });
});

describe('an announcement', () => {
  test('that comes twice counts once, and one of another round or model not at all', async () => {
    const refused: MessageOf<'receipt'>[] = [];
    const { run, names } = await play({
      async announce({ channel }, trained) {
        for (const lie of [{ round: 0 }, { round: 7 }, { base: '7'.repeat(64) }])
          refused.push(await channel.call({ ...trained, ...lie }, 'receipt'));
        await channel.call(trained, 'receipt');
        await channel.call(trained, 'receipt');
      },
    });
    expect(refused.map(({ code }) => code)).toEqual([
      'FED_UPDATE_STALE',
      'FED_UPDATE_ROUND',
      'FED_UPDATE_BASE',
    ]);
    expect(names).toEqual([...HONEST, BROKEN]);
    const told = run.log().filter((record) => record.type === 'trained' && record.name === BROKEN);
    expect(told).toHaveLength(1);
  });

  test('that comes again while the sum is measured is no news, and the site keeps its update', async () => {
    const receipts: Promise<MessageOf<'receipt'>>[] = [];
    const { run, names } = await play({
      measured: ({ channel }, trained) => void receipts.push(channel.call(trained, 'receipt')),
    });
    expect(names).toEqual([...HONEST, BROKEN]);
    expect(await Promise.all(receipts)).toMatchObject([{ decision: 'send' }]);
    expect(run.log().filter((record) => record.type === 'trained')).toHaveLength(5);
  });

  test('in whose place an update comes without a mask leaves that site out, and nobody waits for it', async () => {
    const receipts: MessageOf<'receipt'>[] = [];
    const { names, failures } = await play({
      async announce({ channel, shelf }, { round, base }) {
        const update = await shelf.addBytes(new Uint8Array(4 * PARAMETERS), 1000);
        receipts.push(
          await channel.call({ type: 'offer', round, base, numExamples: 5, metrics: {}, update }, 'receipt'),
        );
      },
    });
    expect(receipts).toMatchObject([{ decision: 'refused', code: 'FED_UPDATE_UNMASKED' }]);
    expect(names).toEqual(HONEST);
    expect(failures).toEqual([[BROKEN, 'FED_UPDATE_UNMASKED']]);
  });

  test('is followed by offers of this attempt only: one of another is late, and harms nothing', async () => {
    const receipts: MessageOf<'receipt'>[] = [];
    const { names } = await play({
      async before({ channel }, offer) {
        receipts.push(await channel.call({ ...offer, attempt: 'another' }, 'receipt'));
      },
    });
    expect(receipts).toMatchObject([{ decision: 'refused', code: 'FED_UPDATE_LATE' }]);
    expect(names).toEqual([...HONEST, BROKEN]);
  });
});

type Offer = Omit<MessageOf<'offer'>, 'signed'>;

/** What is done otherwise than by an honest site. */
interface Bend {
  readonly advertised?: (answer: MessageOf<'advertised'>) => Message;
  readonly shared?: (answer: MessageOf<'shared'>) => Message;
  readonly agreed?: (answer: MessageOf<'agreed'>) => Message;
  readonly unmasked?: (answer: MessageOf<'unmasked'>) => Message;
  /** Undefined: none is sent. */
  readonly packed?: (bytes: Uint8Array) => Uint8Array | undefined;
  readonly offer?: (offer: Offer) => Offer;
  /** Sends the bytes of this in place of each chunk. */
  readonly serve?: () => Uint8Array;
  readonly silentAt?: SecaggStage['type'];
  readonly onSilence?: (stage: SecaggStage['type']) => Promise<void>;
  readonly announce?: (
    worker: ScriptedWorker,
    trained: Omit<MessageOf<'trained'>, 'signed'>,
  ) => Promise<void>;
  /** Called when it is asked to evaluate. */
  readonly measured?: (worker: ScriptedWorker, trained: Omit<MessageOf<'trained'>, 'signed'>) => void;
  readonly before?: (worker: ScriptedWorker, offer: Offer) => Promise<void>;
}

const ANSWERS = {
  advertise: 'advertised',
  share: 'shared',
  agree: 'agreed',
  unmask: 'unmasked',
} as const;

/** One round of five sites, one of which is bent. */
async function play(bend: Bend) {
  if (bend.silentAt) vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'], shouldAdvanceTime: true });
  const tap = tapped(memoryTransport());
  const run = await startMasked(
    {
      rounds: 1,
      strategy: { name: 'fed-avg', weighting: 'uniform' },
      evaluation: { sites: bend.measured !== undefined },
      deadlines: {
        rejoinSeconds: 1,
        roundSeconds: 20,
        quorumSeconds: 20,
        heartbeatSeconds: 700,
        extensions: 1,
      },
    },
    { transport: tap.transport },
  );
  /** Once all others have answered, the time is up that the coordinator waits for this one. */
  const onSilence = async (stage: SecaggStage['type']) => {
    const answered = () =>
      stage === 'mask'
        ? run.events.filter(({ type }) => type === 'update-accepted').length
        : tap.toCoordinator().messages.filter(({ type }) => type === ANSWERS[stage]).length;
    await vi.waitFor(() => expect(answered()).toBe(HONEST.length), 15_000);
    vi.advanceTimersByTime(stage === 'mask' ? 600_000 : 60_000);
  };
  const bent = await bentSite(run.coordinator.invite(), run.transport, { ...bend, onSilence });
  for (const name of HONEST) run.join(name, { update: () => 0.1 });
  await vi.waitFor(() => expect(run.events.filter(({ type }) => type === 'ready')).toHaveLength(5), 15_000);
  const end = await run.coordinator.run();
  await bent.close();
  expect(verifyRun(run.runDir).findings).toEqual([]);
  return {
    run,
    end,
    names: commitsOf(run).flatMap(({ updates }) => updates.map(({ name }) => name)),
    failures: run.events.flatMap((event) =>
      event.type === 'client-failed' ? [[event.name, event.code]] : [],
    ),
  };
}

async function bentSite(
  invite: string,
  transport: Parameters<typeof startScriptedWorker>[0]['transport'],
  bend: Bend,
): Promise<ScriptedWorker> {
  const key = keyFrom(BROKEN);
  let site: SecaggSite | undefined;
  let round = { round: 0, base: '' };
  const worker = await startScriptedWorker({
    transport,
    name: BROKEN,
    credential: BROKEN,
    invite,
    async train({ plan }) {
      const trained = { type: 'trained', round: plan.round, base: plan.model.digest } as const;
      if (bend.announce) await bend.announce(worker, trained);
      else await worker.channel.call(trained, 'receipt');
      return undefined;
    },
    onStage: async (message) => {
      if (message.type === bend.silentAt && message.type !== 'mask') {
        void bend.onSilence?.(message.type);
        return await new Promise<never>(() => undefined);
      }
      return bent(await stage(message));
    },
    ...(bend.measured
      ? {
          evaluate: () => {
            bend.measured!(worker, { type: 'trained', ...round });
            return { numExamples: 5, metrics: {} };
          },
        }
      : {}),
    ...(bend.serve
      ? {
          onChunk: async ({ digest, index }) => ({
            message: { type: 'chunk-data', digest, index },
            body: bend.serve!(),
          }),
        }
      : {}),
  });

  async function stage(message: SecaggStage): Promise<Message> {
    switch (message.type) {
      case 'advertise':
        round = { round: message.round, base: message.base };
        site = secaggSite(message);
        return { type: 'advertised', ...keysToText(site.advertiseKeys()) };
      case 'share': {
        const { envelopes } = site!.shareKeys(
          message.keys.map((one) => ({ site: one.site, ...keysToBytes(one) })),
        );
        return {
          type: 'shared',
          envelopes: envelopes.map(({ to, sealed }) => ({ to, sealed: bytesToText(sealed) })),
        };
      }
      case 'mask': {
        const envelopes = message.envelopes.map(({ from, sealed }) => ({
          from,
          sealed: textToBytes(sealed),
        }));
        const update = new Float32Array(PARAMETERS).fill(WRONG);
        const { packed } = site!.mask({ sharers: message.sharers, envelopes }, [update], 1).message;
        setImmediate(() => void offerMasked(message.attempt, packed));
        return { type: 'ok' };
      }
      case 'agree':
        return { type: 'agreed', signature: bytesToText(site!.signSurvivors(message.survivors).signature) };
      case 'unmask': {
        const signatures = message.signatures.map((one) => ({
          site: one.site,
          signature: textToBytes(one.signature),
        }));
        const { seedShares, maskKeyShares } = site!.unmask({ survivors: message.survivors, signatures });
        const text = (list: typeof seedShares) =>
          list.map(({ of, share }) => ({ of, share: bytesToText(share) }));
        return { type: 'unmasked', seedShares: text(seedShares), maskKeyShares: text(maskKeyShares) };
      }
    }
  }

  function bent(answer: Message): Message {
    switch (answer.type) {
      case 'advertised':
        return bend.advertised?.(answer) ?? answer;
      case 'shared':
        return bend.shared?.(answer) ?? answer;
      case 'agreed':
        return bend.agreed?.(answer) ?? answer;
      case 'unmasked':
        return bend.unmasked?.(answer) ?? answer;
      default:
        return answer;
    }
  }

  async function offerMasked(attempt: string, packed: Uint8Array): Promise<void> {
    const bytes = bend.packed ? bend.packed(packed) : packed;
    if (bytes === undefined) return await bend.onSilence?.('mask');
    const update = await worker.shelf.addBytes(bytes, 1000);
    const offer: Offer = { type: 'offer', ...round, metrics: {}, update, attempt };
    await bend.before?.(worker, offer);
    await worker.channel.call((bend.offer?.(offer) ?? offer) as Outgoing, 'receipt');
  }

  function secaggSite({ round: number, base, attempt, cohort }: MessageOf<'advertise'>): SecaggSite {
    const { runId, configDigest, privacy } = worker.welcome.federation;
    const settings = settingsOfRound(
      { ...privacy!.secureAggregation!, weighting: 'uniform' },
      {
        run: runId,
        round: number,
        attempt,
        cohort: cohort.map(({ name }) => name),
        parameters: PARAMETERS,
        modelDigest: base,
        configurationDigest: configDigest,
      },
    );
    const roster = new Map(cohort.map(({ name, publicKey }) => [name, publicKey]));
    const sign = (bytes: Uint8Array) => textToBytes(key.signBytes(bytes));
    return new SecaggSite({ settings, site: BROKEN, roster, sign });
  }
  return worker;
}

/** The answer with other bytes in the place of a field of 64. */
function spoil<F extends string>(field: F) {
  return <M extends Message & Record<F, string>>(answer: M): M => ({
    ...answer,
    [field]: bytesToText(randomBytes(64)),
  });
}

function uselessEnvelopes(victims: readonly string[]) {
  return (answer: MessageOf<'shared'>): Message => ({
    ...answer,
    envelopes: answer.envelopes.map(({ to, sealed }) => ({
      to,
      sealed: victims.includes(to) ? bytesToText(randomBytes(textToBytes(sealed).length)) : sealed,
    })),
  });
}

function wrongShares(answer: MessageOf<'unmasked'>): Message {
  return {
    ...answer,
    seedShares: answer.seedShares.map(({ of }) => ({ of, share: bytesToText(randomBytes(32)) })),
  };
}

function ending(bytes: Uint8Array, last: number): Uint8Array {
  const changed = bytes.slice();
  changed[changed.length - 1] = last;
  return changed;
}
