/**
 * What a coordinator, or a site that works with it, may try; each is caught by the code that the test names, and the site
 * that was asked has erased its secrets and answers nothing more. Numbers are of the sections of our rules for privacy.
 */
import { describe, expect, test } from 'vitest';
import {
  type Delivery,
  type KeysMessage,
  PrivacyError,
  SecaggCoordinator,
  type SecaggPlan,
  SecaggSite,
  type SurvivorsMessage,
  type UnmaskRequest,
} from '../../src/index.ts';
import {
  agreeOnCohort,
  keysStatement,
  seedCommitment,
  survivorsStatement,
} from '../../src/secure-aggregation/cohort.ts';
import { createKeyPair } from '../../src/secure-aggregation/keys.ts';
import {
  codeOf,
  digestOf,
  examplesOf,
  type Federation,
  federation,
  play,
  sharesTold,
  updateOf,
} from './federation.ts';

/** Five sites and an honest coordinator, up to where an attack begins. */
function upTo(members: Federation = federation(5)) {
  const sites = new Map(members.ids.map((id) => [id, members.site(id)]));
  const all = [...sites.values()];
  const site = (id: string) => sites.get(id)!;
  const coordinator = members.coordinator();
  const keys = () => {
    for (const one of all) coordinator.receiveKeys(one.advertiseKeys());
    return coordinator.closeKeys();
  };
  const deliveries = () => {
    const list = keys();
    for (const one of all) coordinator.receiveShares(one.shareKeys(list));
    return coordinator.closeShares();
  };
  const maskOf = (one: SecaggSite, delivery: Delivery) =>
    one.mask(delivery, [updateOf(one.site, members.settings.parameters)], examplesOf(one.site)).message;
  const survivors = (without: string[] = []) => {
    const delivered = deliveries();
    for (const one of all)
      if (!without.includes(one.site)) coordinator.receiveMasked(maskOf(one, delivered.get(one.site)!));
    return coordinator.closeMasked();
  };
  const request = (without: string[] = []) => {
    const list = survivors(without);
    for (const id of list) coordinator.receiveSignature(site(id).signSurvivors(list));
    return coordinator.closeSignatures();
  };
  return { members, site, coordinator, keys, deliveries, maskOf, survivors, request };
}

const ringOf12 = () => federation(12, { harary: { degree: 6, threshold: 4 }, threshold: 7 });

/** It has aborted: whatever comes next is refused, with nothing in it. */
function expectSilence(site: SecaggSite): void {
  const nothing: UnmaskRequest = { survivors: [], signatures: [] };
  for (const ask of [
    () => site.advertiseKeys(),
    () => site.shareKeys([]),
    () => site.mask({ sharers: [], envelopes: [] }, [], 1),
    () => site.signSurvivors([]),
    () => site.unmask(nothing),
  ])
    expect(codeOf(ask)).toBe('FED_PRIVACY_SECAGG_STAGE');
}

/** Keys of the coordinator's making in the name of a site, signed by whomever it can. */
function forgedKeys(members: Federation, site: string, sign: (bytes: Uint8Array) => Uint8Array): KeysMessage {
  const { plan } = members.coordinator();
  const message = {
    site,
    channelKey: createKeyPair().publicKey,
    maskKey: createKeyPair().publicKey,
    seedCommitment: seedCommitment(plan, site, new Uint8Array(32)),
  };
  return { ...message, signature: sign(keysStatement(plan, message)) };
}

describe('2.5 swapped public keys', () => {
  test('keys that are not signed by the pinned key are refused: unsigned, by another site, by the coordinator', () => {
    const coordinatorsKey = federation(6).sign('s05');
    for (const sign of [() => new Uint8Array(64), federation(5).sign('s02'), coordinatorsKey]) {
      const { keys, site, members } = upTo();
      const list = keys().map((message) =>
        message.site === 's01' ? forgedKeys(members, 's01', sign) : message,
      );
      expect(codeOf(() => site('s00').shareKeys(list))).toBe('FED_PRIVACY_SECAGG_SIGNATURE');
      expectSilence(site('s00'));
    }
  });

  test('one changed bit in any key, or in the commitment, is found', () => {
    for (const field of ['channelKey', 'maskKey', 'seedCommitment', 'signature'] as const) {
      const { keys, site } = upTo();
      const list = keys().map((message) => {
        if (message.site !== 's03') return message;
        const changed = message[field].slice();
        changed[5]! ^= 1;
        return { ...message, [field]: changed };
      });
      expect(codeOf(() => site('s00').shareKeys(list))).toBe('FED_PRIVACY_SECAGG_SIGNATURE');
    }
  });

  test('the error names the site whose keys were swapped', () => {
    const { keys, site, members } = upTo();
    const list = keys().map((one) =>
      one.site === 's01' ? forgedKeys(members, 's01', members.sign('s02')) : one,
    );
    try {
      site('s00').shareKeys(list);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(PrivacyError);
      expect(error).toMatchObject({ site: 's01' });
    }
  });

  test('a site’s own keys must be there as it sent them', () => {
    const first = upTo();
    const without = first.keys().filter((message) => message.site !== 's00');
    expect(codeOf(() => first.site('s00').shareKeys(without))).toBe('FED_PRIVACY_SECAGG_KEYS');
    // Even others that it has signed: those of another object of the same round.
    const second = upTo();
    const own = second.members.site('s00').advertiseKeys();
    const list = second.keys().map((message) => (message.site === 's00' ? own : message));
    expect(codeOf(() => second.site('s00').shareKeys(list))).toBe('FED_PRIVACY_SECAGG_KEYS');
  });

  test('a key that gives the same secret with everybody hides nothing, and is refused', () => {
    const { keys, site, members } = upTo();
    const zero = new Uint8Array(32);
    const { plan } = members.coordinator();
    const list = keys().map((message) => {
      if (message.site !== 's01') return message;
      const weak = { ...message, channelKey: zero };
      return { ...weak, signature: members.sign('s01')(keysStatement(plan, weak)) };
    });
    expect(codeOf(() => site('s00').shareKeys(list))).toBe('FED_PRIVACY_SECAGG_KEYS');
  });
});

describe('2.5 and 6, 2 (Flower _unmask): lies about who dropped out', () => {
  test('two sets for two halves: nobody gets enough signatures over what it signed itself', () => {
    const { site, survivors, members } = upTo(federation(5, { threshold: 3 }));
    const all = survivors();
    const without = all.filter((id) => id !== 's04');
    const half = ['s00', 's01'].map((id) => site(id).signSurvivors(all));
    const others = ['s02', 's03'].map((id) => site(id).signSurvivors(without));
    expect(codeOf(() => site('s00').unmask({ survivors: all, signatures: half }))).toBe(
      'FED_PRIVACY_SECAGG_TOO_FEW',
    );
    expectSilence(site('s00'));
    // Signatures over the other set don't help.
    expect(codeOf(() => site('s01').unmask({ survivors: all, signatures: [...half, ...others] }))).toBe(
      'FED_PRIVACY_SECAGG_SIGNATURE',
    );
    expect(codeOf(() => site('s02').unmask({ survivors: without, signatures: others }))).toBe(
      'FED_PRIVACY_SECAGG_TOO_FEW',
    );
    expect(members.coordinator().plan.threshold).toBe(3);
  });

  test('a site signs one set and answers one unmask, whatever it is asked then', () => {
    const { site, request } = upTo();
    const asked = request();
    expect(codeOf(() => site('s00').signSurvivors(asked.survivors.slice(1)))).toBe(
      'FED_PRIVACY_SECAGG_STAGE',
    );
    const { seedShares, maskKeyShares } = site('s00').unmask(asked);
    expect(seedShares.map(({ of }) => of)).toEqual(['s00', 's01', 's02', 's03', 's04']);
    expect(maskKeyShares).toEqual([]);
    expectSilence(site('s00'));
  });

  test('a set to unmask that differs from the one that was signed is refused: smaller, larger, in another order', () => {
    for (const change of [
      (list: readonly string[]) => list.slice(0, -1),
      (list: readonly string[]) => [...list, 's04'],
      (list: readonly string[]) => [...list].reverse(),
      (list: readonly string[]) => [...list.slice(1), list[1]!],
    ]) {
      const { site, request } = upTo();
      const asked = request(['s04']);
      expect(asked.survivors).toEqual(['s00', 's01', 's02', 's03']);
      const changed = { ...asked, survivors: change(asked.survivors) };
      expect(codeOf(() => site('s00').unmask(changed))).toBe('FED_PRIVACY_SECAGG_SETS');
      expectSilence(site('s00'));
    }
  });

  test('survivors that never shared, are there twice, or leave out the site that is asked, are refused', () => {
    for (const lie of [
      (all: readonly string[]) => all.filter((id) => id !== 's00'),
      (all: readonly string[]) => [...all, 's09'],
      (all: readonly string[]) => [...all, 's04'],
      () => 's00' as unknown as string[],
    ]) {
      const { site, survivors } = upTo();
      const all = survivors();
      expect(codeOf(() => site('s00').signSurvivors(lie(all)))).toBe('FED_PRIVACY_SECAGG_SETS');
      expectSilence(site('s00'));
    }
  });

  test('sites that were told different sharers do not sign the same, though the survivors are', () => {
    const { members, site, deliveries, maskOf } = upTo(federation(5, { threshold: 3 }));
    const delivered = deliveries();
    const survivors = members.ids.slice(0, 4);
    for (const id of survivors) {
      const { sharers, envelopes } = delivered.get(id)!;
      // To s00, s04 has never shared: it has no mask with it, and no share to tell.
      const without = {
        sharers: sharers.filter((other) => other !== 's04'),
        envelopes: envelopes.filter(({ from }) => from !== 's04'),
      };
      maskOf(site(id), id === 's00' ? without : { sharers, envelopes });
    }
    const signatures = survivors.map((id) => site(id).signSurvivors(survivors));
    for (const id of survivors) {
      expect(codeOf(() => site(id).unmask({ survivors, signatures }))).toBe('FED_PRIVACY_SECAGG_SIGNATURE');
      expectSilence(site(id));
    }
  });

  test('fewer survivors than the threshold are not signed for', () => {
    const { site, survivors } = upTo();
    const all = survivors();
    expect(codeOf(() => site('s00').signSurvivors(all.slice(0, 3)))).toBe('FED_PRIVACY_SECAGG_TOO_FEW');
    expectSilence(site('s00'));
  });

  test('nor fewer than the site’s own minimum, though the threshold is lower', () => {
    const members = federation(5, { threshold: 3 });
    const careful = { ...members, site: (id: string) => members.site(id, { minCohort: 4 }) };
    const { site, survivors } = upTo(careful);
    const all = survivors();
    expect(codeOf(() => site('s00').signSurvivors(all.slice(0, 3)))).toBe('FED_PRIVACY_SECAGG_TOO_FEW');
    expect(codeOf(() => site('s01').signSurvivors(all.slice(0, 4)))).toBeUndefined();
  });

  test('a site does not mask among fewer sharers than the threshold', () => {
    const { deliveries, site, maskOf } = upTo();
    const { sharers, envelopes } = deliveries().get('s00')!;
    const few = { sharers: sharers.slice(0, 3), envelopes: envelopes.slice(0, 2) };
    expect(codeOf(() => maskOf(site('s00'), few))).toBe('FED_PRIVACY_SECAGG_TOO_FEW');
    expectSilence(site('s00'));
  });

  test('in a ring, a site whose neighbours are said to be gone does not sign', () => {
    const { site, deliveries, maskOf, coordinator, members } = upTo(ringOf12());
    const delivered = deliveries();
    const neighbours = delivered.get('s00')!.envelopes.map(({ from }) => from);
    expect(neighbours.length).toBe(6);
    for (const id of members.ids) coordinator.receiveMasked(maskOf(site(id), delivered.get(id)!));
    const lie = coordinator.closeMasked().filter((id) => !neighbours.slice(0, 3).includes(id));
    expect(lie.length).toBeGreaterThan(coordinator.plan.threshold);
    expect(codeOf(() => site('s00').signSurvivors(lie))).toBe('FED_PRIVACY_SECAGG_TOO_FEW');
    expectSilence(site('s00'));
  });

  test('a signature that is there twice counts for no two, and one by somebody outside is refused', () => {
    const first = upTo();
    const asked = first.request();
    const [own, one] = asked.signatures as [SurvivorsMessage, SurvivorsMessage];
    const code = (signatures: SurvivorsMessage[]) => {
      const { site, request } = upTo();
      request();
      return codeOf(() => site('s00').unmask({ survivors: asked.survivors, signatures }));
    };
    expect(code([one, one, one, one])).toBe('FED_PRIVACY_SECAGG_SIGNATURE');
    expect(
      codeOf(() =>
        first.site('s00').unmask({ ...asked, signatures: [own, one, one, ...asked.signatures.slice(3)] }),
      ),
    ).toBe('FED_PRIVACY_SECAGG_MESSAGE');
    const strange = { ...one, site: 's09' };
    expect(
      codeOf(() =>
        first.site('s01').unmask({ ...asked, signatures: [strange, ...asked.signatures.slice(1)] }),
      ),
    ).toBe('FED_PRIVACY_SECAGG_MESSAGE');
  });

  test('as many signatures as the threshold are checked, and what is wrong among them ends it; a site needs none of its own', () => {
    const codes = [0, 1, 2, 3, 4].map((wrong) => {
      const { site, request } = upTo();
      const asked = request();
      const signatures = asked.signatures.map((one, i) =>
        i === wrong ? { ...one, signature: new Uint8Array(64) } : one,
      );
      return codeOf(() => site('s00').unmask({ ...asked, signatures }));
    });
    // Of five, four are needed; the first is its own.
    const refused = 'FED_PRIVACY_SECAGG_SIGNATURE';
    expect(codes).toEqual([undefined, refused, refused, refused, undefined]);
  });

  test('who dropped out and who stayed: never both secrets of one site are told', () => {
    const { site, request } = upTo();
    const asked = request(['s02']);
    const messages = asked.survivors.map((id) => site(id).unmask(asked));
    const told = sharesTold({ keys: [], shares: [], masked: [], signatures: [], unmask: messages });
    expect([...told.keys()].sort()).toEqual([
      'mask key of s02',
      'seed of s00',
      'seed of s01',
      'seed of s03',
      'seed of s04',
    ]);
  });

  test('a threshold of half the cohort or less is refused: two halves could be unmasked apart', () => {
    for (const threshold of [2, 5, 11, 5.5])
      expect(codeOf(() => federation(10, { threshold }).coordinator())).toBe('FED_PRIVACY_PARAMETER');
    expect(codeOf(() => federation(10, { threshold: 6 }).coordinator())).toBeUndefined();
    expect(federation(10).coordinator().plan.threshold).toBe(7);
    const ring = (threshold: number) => ({ harary: { degree: 6, threshold } });
    expect(codeOf(() => federation(10, ring(3)).coordinator())).toBe('FED_PRIVACY_PARAMETER');
    expect(codeOf(() => federation(10, ring(4)).coordinator())).toBeUndefined();
    expect(codeOf(() => federation(10, { harary: { degree: 10, threshold: 6 } }).coordinator())).toBe(
      'FED_PRIVACY_PARAMETER',
    );
  });
});

describe('in a ring, a neighbourhood that is too small to give back a secret', () => {
  // Though nine of twelve are there and seven are enough.
  test.each(['masked', 'signature', 'unmask'] as const)(
    'ends the round at stage %s, before the next is asked',
    (stage) => {
      const members = ringOf12();
      const { site, deliveries, maskOf, coordinator } = upTo(members);
      const delivered = deliveries();
      const gone = delivered
        .get('s00')!
        .envelopes.slice(0, 3)
        .map(({ from }) => from);
      const left = (at: typeof stage) => members.ids.filter((id) => stage !== at || !gone.includes(id));
      for (const id of left('masked')) coordinator.receiveMasked(maskOf(site(id), delivered.get(id)!));
      const code = 'FED_PRIVACY_SECAGG_TOO_FEW';
      if (stage === 'masked') {
        expect(codeOf(() => coordinator.closeMasked())).toBe(code);
        return;
      }
      const survivors = coordinator.closeMasked();
      for (const id of left('signature')) coordinator.receiveSignature(site(id).signSurvivors(survivors));
      if (stage === 'signature') {
        expect(codeOf(() => coordinator.closeSignatures())).toBe(code);
        return;
      }
      const asked = coordinator.closeSignatures();
      for (const id of left('unmask')) coordinator.receiveUnmask(site(id).unmask(asked));
      expect(codeOf(() => coordinator.finish())).toBe(code);
    },
  );
});

describe('2.5 a reused round, and replays', () => {
  test('keys of an earlier round, of another run, or of another try of the round are refused', () => {
    for (const earlier of [
      federation(5, { round: 1 }),
      federation(5, { round: 2, run: 'run-0' }),
      federation(5, { round: 2, attempt: 'try-0' }),
    ]) {
      const { keys, site } = upTo(federation(5, { round: 2 }));
      const old = earlier.site('s01').advertiseKeys();
      const list = keys().map((message) => (message.site === 's01' ? old : message));
      expect(codeOf(() => site('s00').shareKeys(list))).toBe('FED_PRIVACY_SECAGG_SIGNATURE');
    }
  });

  test('an envelope of another round, of another site, or for another site does not open', () => {
    const other = upTo().deliveries().get('s00')!;
    for (const swap of [
      (mine: Delivery) => ({ ...mine, envelopes: [other.envelopes[0]!, ...mine.envelopes.slice(1)] }),
      ({ sharers, envelopes: [a, b, ...rest] }: Delivery) => ({
        sharers,
        envelopes: [{ ...a!, sealed: b!.sealed }, { ...b!, sealed: a!.sealed }, ...rest],
      }),
    ]) {
      const { deliveries, site, maskOf } = upTo();
      const mine = deliveries().get('s00')!;
      expect(codeOf(() => maskOf(site('s00'), swap(mine)))).toBe('FED_PRIVACY_SECAGG_ENVELOPE');
      expectSilence(site('s00'));
    }
    const { deliveries, site, maskOf } = upTo();
    const all = deliveries();
    const forOther = all.get('s01')!.envelopes.find(({ from }) => from === 's02')!;
    const mine = all.get('s00')!;
    const envelopes = mine.envelopes.map((one) => (one.from === 's02' ? forOther : one));
    expect(codeOf(() => maskOf(site('s00'), { ...mine, envelopes }))).toBe('FED_PRIVACY_SECAGG_ENVELOPE');
  });

  test('an envelope that comes back to the site that sealed it does not open', () => {
    const { members, site, keys, coordinator, maskOf } = upTo();
    const list = keys();
    const shares = members.ids.map((id) => site(id).shareKeys(list));
    for (const message of shares) coordinator.receiveShares(message);
    const own = shares[0]!.envelopes.map(({ to, sealed }) => ({ from: to, sealed }));
    const { sharers } = coordinator.closeShares().get('s00')!;
    // Each would be kept as a share of another's secrets, and told as one.
    expect(codeOf(() => maskOf(site('s00'), { sharers, envelopes: own }))).toBe(
      'FED_PRIVACY_SECAGG_ENVELOPE',
    );
    expectSilence(site('s00'));
  });

  test('envelopes that are missing, there twice, or from those who did not share, are refused', () => {
    for (const change of [
      (one: Delivery) => ({ ...one, envelopes: one.envelopes.slice(1) }),
      (one: Delivery) => ({ ...one, envelopes: [one.envelopes[1]!, ...one.envelopes.slice(1)] }),
      (one: Delivery) => ({ ...one, sharers: one.sharers.filter((id) => id !== 's04') }),
      (one: Delivery) => ({ ...one, envelopes: [{ from: 's01', sealed: new Uint8Array(7) }] }),
    ]) {
      const { deliveries, site, maskOf } = upTo();
      const mine = deliveries().get('s00')!;
      expect(codeOf(() => maskOf(site('s00'), change(mine)))).toBe('FED_PRIVACY_SECAGG_MESSAGE');
    }
    const { deliveries, site, maskOf } = upTo();
    const mine = deliveries().get('s00')!;
    const sharers = mine.sharers.filter((id) => id !== 's00');
    expect(codeOf(() => maskOf(site('s00'), { ...mine, sharers }))).toBe('FED_PRIVACY_SECAGG_SETS');
  });

  test('signatures of the survivors of an earlier round, or another try, are worth nothing in this one', () => {
    for (const earlier of [{ round: 1 }, { round: 2, attempt: 'try-0' }]) {
      const old = upTo(federation(5, earlier)).request();
      const { site, request } = upTo(federation(5, { round: 2 }));
      request();
      expect(codeOf(() => site('s00').unmask(old))).toBe('FED_PRIVACY_SECAGG_SIGNATURE');
    }
  });

  test('the try of a round is in what is signed, though all keys were the same, and in the digest of the plan', () => {
    const [one, other] = ['try-1', 'try-2'].map((attempt) => federation(3, { attempt }).coordinator().plan);
    expect(one!.digest).not.toEqual(other!.digest);
    const zero = new Uint8Array(32);
    const message = { site: 's00', channelKey: zero, maskKey: zero, seedCommitment: zero };
    expect(keysStatement(one!, message)).not.toEqual(keysStatement(other!, message));
    const members = federation(3);
    const keys = members.ids.map((id) => members.site(id).advertiseKeys());
    const cohort = agreeOnCohort(one!, members.roster, keys);
    const statement = (plan: SecaggPlan) => survivorsStatement(plan, cohort, members.ids, members.ids);
    expect(statement(one!)).not.toEqual(statement(other!));
  });

  test('sites that were told different lists of keys open nothing of each other', () => {
    const members = federation(6, { threshold: 4 });
    const sites = new Map(members.ids.map((id) => [id, members.site(id)]));
    const keys = members.ids.map((id) => sites.get(id)!.advertiseKeys());
    const toldAll = sites.get('s01')!.shareKeys(keys);
    const fewer = keys.filter(({ site }) => site !== 's05');
    for (const id of ['s00', 's02', 's03']) sites.get(id)!.shareKeys(fewer);
    const sealed = toldAll.envelopes.find(({ to }) => to === 's00')!.sealed;
    const delivery = { sharers: ['s00', 's01', 's02', 's03'], envelopes: [{ from: 's01', sealed }] };
    expect(codeOf(() => sites.get('s00')!.mask(delivery, [new Float32Array(5)], 1))).toBe(
      'FED_PRIVACY_SECAGG_ENVELOPE',
    );
  });

  test('sites that were told different settings open nothing of each other', () => {
    const fixedPoint = { clippingRange: 1, steps: 2 ** 12, maxWeight: 100 };
    for (const told of [
      { threshold: 3 },
      { fixedPoint: { ...fixedPoint, clippingRange: 1000 } },
      { fixedPoint: { ...fixedPoint, steps: 2 ** 10 } },
      { fixedPoint: { ...fixedPoint, maxWeight: 1 } },
      { fixedPoint: { ...fixedPoint, examplesPerWeight: 10 } },
    ]) {
      const [members, others] = [federation(5), federation(5, told)];
      const sites = members.ids.map((id) => (id === 's01' ? others : members).site(id));
      const [site, other] = sites as [SecaggSite, SecaggSite];
      const keys = sites.map((one) => one.advertiseKeys());
      const shares = sites.map((one) => one.shareKeys(keys));
      for (const one of [site, other]) {
        const envelopes = shares.flatMap(({ site: from, envelopes: sealed }) =>
          sealed.flatMap((envelope) => (envelope.to === one.site ? [{ from, sealed: envelope.sealed }] : [])),
        );
        const delivery = { sharers: members.ids, envelopes };
        expect(codeOf(() => one.mask(delivery, [new Float32Array(5)], 1))).toBe(
          'FED_PRIVACY_SECAGG_ENVELOPE',
        );
        expectSilence(one);
      }
    }
  });

  test('6, 12 (mask reuse, arXiv 2410.09676): a site’s object is one round, and two have no key in common', () => {
    const members = federation(3);
    const [a, b] = [members.site('s00').advertiseKeys(), members.site('s00').advertiseKeys()];
    for (const field of ['channelKey', 'maskKey', 'seedCommitment'] as const)
      expect(a[field]).not.toEqual(b[field]);
    const played = play(members, new Map());
    expect(played.error).toBeUndefined();
  });
});

describe('2.5 Sybil: invented sites around one victim', () => {
  test('a site that is not in the pinned roster is refused, though it signs', () => {
    const members = federation(5);
    const invented = federation(6, { cohort: members.ids });
    const roster = new Map([...members.roster].filter(([id]) => id !== 's04'));
    const site = members.site('s00', { roster });
    const keys = members.ids.map((id) => (id === 's00' ? site : invented.site(id)).advertiseKeys());
    expect(codeOf(() => site.shareKeys(keys))).toBe('FED_PRIVACY_SECAGG_SIGNATURE');
    expectSilence(site);
  });

  test('one site under two names is refused: by its identity, and by the round’s keys', () => {
    const members = federation(4);
    const roster = new Map(members.roster).set('s03', members.roster.get('s02')!);
    const twice = members.site('s00', { roster });
    const keys = members.ids.map((id) => {
      if (id === 's00') return twice.advertiseKeys();
      return members.site(id, { sign: members.sign(id === 's03' ? 's02' : id) }).advertiseKeys();
    });
    expect(codeOf(() => twice.shareKeys(keys))).toBe('FED_PRIVACY_SECAGG_KEYS');

    const site = members.site('s00');
    const { plan } = site;
    const honest = members.ids.map((id) => (id === 's00' ? site : members.site(id)).advertiseKeys());
    const same = { ...honest[3]!, maskKey: honest[2]!.maskKey };
    honest[3] = { ...same, signature: members.sign('s03')(keysStatement(plan, same)) };
    expect(codeOf(() => site.shareKeys(honest))).toBe('FED_PRIVACY_SECAGG_KEYS');
  });

  test('a cohort below a site’s minimum is declined, whoever is in it: at the plan, at the keys, and in the sum', () => {
    expect(codeOf(() => federation(2).coordinator())).toBe('FED_PRIVACY_SECAGG_TOO_FEW');
    const members = federation(5, { threshold: 3 });
    expect(codeOf(() => members.site('s00', { minCohort: 6 }))).toBe('FED_PRIVACY_SECAGG_TOO_FEW');
    expect(codeOf(() => members.site('s00', { minCohort: 2 }))).toBe('FED_PRIVACY_PARAMETER');
    const sites = members.ids.map((id) => members.site(id, { minCohort: 4 }));
    const keys = sites.map((site) => site.advertiseKeys());
    expect(codeOf(() => sites[0]!.shareKeys(keys.slice(0, 3)))).toBe('FED_PRIVACY_SECAGG_TOO_FEW');
  });
});

describe('2.5 model inconsistency (Pasquini et al., 2022)', () => {
  test('sites with different models do not sign the same, and nothing is unmasked', () => {
    const members = federation(5, { threshold: 3 });
    const others = federation(5, { threshold: 3, modelDigest: digestOf('a model without gradient') });
    const sites = new Map(members.ids.map((id) => [id, (id === 's01' ? members : others).site(id)]));
    // The coordinator can go along with it up to the survivors.
    const coordinator = members.coordinator();
    for (const site of sites.values()) coordinator.receiveKeys(site.advertiseKeys());
    const keys = coordinator.closeKeys();
    for (const site of sites.values()) coordinator.receiveShares(site.shareKeys(keys));
    const deliveries = coordinator.closeShares();
    for (const [id, site] of sites)
      coordinator.receiveMasked(site.mask(deliveries.get(id)!, [updateOf(id, 5)], 1).message);
    const survivors = coordinator.closeMasked();
    const signatures = [...sites.values()].map((site) => site.signSurvivors(survivors));
    for (const site of sites.values())
      expect(codeOf(() => site.unmask({ survivors, signatures }))).toBe('FED_PRIVACY_SECAGG_SIGNATURE');
    // And an honest coordinator hears who has another model than it.
    expect(codeOf(() => coordinator.receiveSignature(signatures[0]!))).toBe('FED_PRIVACY_SECAGG_SIGNATURE');
    expect(codeOf(() => coordinator.receiveSignature(signatures[1]!))).toBeUndefined();
  });

  test('another configuration or round is another model', () => {
    const { plan } = federation(3).coordinator();
    for (const other of [
      { configurationDigest: digestOf('other') },
      { round: 2 },
      { modelDigest: digestOf('other') },
    ])
      expect(federation(3, other).coordinator().plan.modelBinding).not.toEqual(plan.modelBinding);
  });
});

describe('2.5 malicious sites', () => {
  const silent = (id: string) => ({ of: id, share: new Uint8Array(32) });

  test('what is no masked update leaves noise, and is said to', () => {
    const { coordinator, deliveries, site, maskOf, members } = upTo(federation(5, { parameters: 50 }));
    const delivered = deliveries();
    for (const id of members.ids) {
      const message = maskOf(site(id), delivered.get(id)!);
      const packed = id === 's02' ? new Uint8Array(message.packed.length) : message.packed;
      coordinator.receiveMasked({ site: id, packed });
    }
    const survivors = coordinator.closeMasked();
    for (const id of survivors) coordinator.receiveSignature(site(id).signSurvivors(survivors));
    const asked = coordinator.closeSignatures();
    for (const id of survivors) coordinator.receiveUnmask(site(id).unmask(asked));
    expect(codeOf(() => coordinator.finish())).toBe('FED_PRIVACY_SECAGG_NOISE');
  });

  test('one value that is more than all updates could sum to is noise too', () => {
    const { coordinator, deliveries, site, maskOf, members } = upTo();
    const delivered = deliveries();
    for (const id of members.ids) {
      const { packed } = maskOf(site(id), delivered.get(id)!);
      // The first word has 21 bits, and its highest is 2^20; the largest sum here is 4096 for each of 15 of weight.
      if (id === 's02') packed[2]! ^= 1 << 4;
      coordinator.receiveMasked({ site: id, packed });
    }
    const survivors = coordinator.closeMasked();
    for (const id of survivors) coordinator.receiveSignature(site(id).signSurvivors(survivors));
    const asked = coordinator.closeSignatures();
    for (const id of survivors) coordinator.receiveUnmask(site(id).unmask(asked));
    expect(codeOf(() => coordinator.finish())).toBe('FED_PRIVACY_SECAGG_NOISE');
  });

  test('one liar about shares is left out, where enough others are there; else the round ends and says so', () => {
    for (const [threshold, code] of [
      [4, undefined],
      [5, 'FED_PRIVACY_SECAGG_SHARES'],
    ] as const) {
      const { coordinator, site, request } = upTo(federation(5, { threshold }));
      const asked = request();
      for (const id of asked.survivors) {
        const message = site(id).unmask(asked);
        const lie = { ...message, seedShares: message.seedShares.map(({ of }) => silent(of)) };
        coordinator.receiveUnmask(id === 's01' ? lie : message);
      }
      expect(codeOf(() => coordinator.finish())).toBe(code);
    }
  });

  test('shares that are missing, not due, of a wrong size or of the wrong secret are refused, and the round goes on', () => {
    const { coordinator, site, request } = upTo();
    const asked = request(['s04']);
    const message = site('s00').unmask(asked);
    const refused = (change: Partial<typeof message>) =>
      codeOf(() => coordinator.receiveUnmask({ ...message, ...change }));
    const { seedShares, maskKeyShares } = message;
    const code = 'FED_PRIVACY_SECAGG_MESSAGE';
    expect(refused({ seedShares: seedShares.slice(1) })).toBe(code);
    expect(refused({ seedShares: [...seedShares.slice(1), silent('s04')] })).toBe(code);
    expect(refused({ seedShares: [...seedShares.slice(1), seedShares[1]!] })).toBe(code);
    expect(refused({ seedShares: [...seedShares.slice(1), { of: 's00', share: new Uint8Array(31) }] })).toBe(
      code,
    );
    expect(refused({ maskKeyShares: [] })).toBe(code);
    expect(refused({ maskKeyShares: null as unknown as [] })).toBe(code);
    expect(refused({ site: 's04' })).toBe(code);
    expect(refused({ maskKeyShares })).toBeUndefined();
    expect(refused({})).toBe(code);
  });

  test('a masked update of another size, or a second one, is refused, and the sum does not have it', () => {
    const { coordinator, deliveries, site, maskOf, members } = upTo();
    const delivered = deliveries();
    const message = maskOf(site('s00'), delivered.get('s00')!);
    const code = 'FED_PRIVACY_SECAGG_MESSAGE';
    expect(codeOf(() => coordinator.receiveMasked({ ...message, packed: message.packed.subarray(1) }))).toBe(
      code,
    );
    expect(codeOf(() => coordinator.receiveMasked({ ...message, site: 'nobody' }))).toBe(code);
    coordinator.receiveMasked(message);
    expect(codeOf(() => coordinator.receiveMasked(message))).toBe(code);
    for (const id of members.ids.slice(1)) coordinator.receiveMasked(maskOf(site(id), delivered.get(id)!));
    const survivors = coordinator.closeMasked();
    for (const id of survivors) coordinator.receiveSignature(site(id).signSurvivors(survivors));
    const asked = coordinator.closeSignatures();
    for (const id of survivors) coordinator.receiveUnmask(site(id).unmask(asked));
    expect(coordinator.finish().survivors).toEqual(members.ids);
  });

  test('shares for others than those who are due, or of another size, are refused by the coordinator', () => {
    const { coordinator, keys, site } = upTo();
    const message = site('s00').shareKeys(keys());
    const [first, ...rest] = message.envelopes;
    for (const envelopes of [
      rest,
      [{ ...first!, to: 's00' }, ...rest],
      [rest[0]!, ...rest],
      [{ ...first!, sealed: new Uint8Array(3) }, ...rest],
      'none' as unknown as [],
    ])
      expect(codeOf(() => coordinator.receiveShares({ site: 's00', envelopes }))).toBe(
        'FED_PRIVACY_SECAGG_MESSAGE',
      );
    expect(codeOf(() => coordinator.receiveShares(message))).toBeUndefined();
  });

  test('a coordinator takes nothing out of its stage, and goes on with nothing after an abort', () => {
    const { coordinator, members } = upTo();
    expect(codeOf(() => coordinator.finish())).toBe('FED_PRIVACY_SECAGG_STAGE');
    coordinator.receiveKeys(members.site('s00').advertiseKeys());
    expect(codeOf(() => coordinator.receiveKeys(members.site('s00').advertiseKeys()))).toBe(
      'FED_PRIVACY_SECAGG_MESSAGE',
    );
    expect(codeOf(() => coordinator.closeKeys())).toBe('FED_PRIVACY_SECAGG_TOO_FEW');
    expect(codeOf(() => coordinator.receiveKeys(members.site('s01').advertiseKeys()))).toBe(
      'FED_PRIVACY_SECAGG_STAGE',
    );
  });
});

describe('2.5 example counts', () => {
  test('are in no message in clear: messages of a site with 1 and with 100 examples have the same fields and sizes', () => {
    const shape = (numExamples: number) => {
      const { deliveries, site } = upTo();
      const delivered = deliveries().get('s00')!;
      const { message } = site('s00').mask(delivered, [updateOf('s00', 5)], numExamples);
      return Object.entries(message).map(([key, value]) => [key, value.length]);
    };
    expect(shape(1)).toEqual(shape(100));
    expect(shape(1)).toEqual([
      ['site', 3],
      // 7 words of 21 bits: 5 · 100 · 4096 < 2^21.
      ['packed', 19],
    ]);
  });
});

describe('6, 10 (DISCO 1074): shares', () => {
  test('are of one size whatever they are of, and come from node:crypto: none is there twice in 1000', () => {
    const seen = new Set<string>();
    for (let i = 0; i < 50; i++) {
      const { request, site } = upTo(federation(3));
      const asked = request();
      for (const id of asked.survivors)
        for (const { share } of site(id).unmask(asked).seedShares) {
          expect(share.length).toBe(32);
          seen.add(Buffer.from(share).toString('hex'));
        }
      if (seen.size > 200) break;
    }
    expect(seen.size).toBeGreaterThan(200);
  });
});

describe('an update that can’t be sent', () => {
  test.each([
    ['a value that is not a number', [new Float32Array([0, 1, Number.NaN, 0, 0])], 1],
    ['too many examples', [new Float32Array(5)], 101],
    ['no examples', [new Float32Array(5)], 0],
  ])('%s: nothing is sent, and the site is out of the round', (_, update, numExamples) => {
    const { deliveries, site } = upTo();
    const mine = deliveries().get('s00')!;
    expect(codeOf(() => site('s00').mask(mine, update, numExamples))).toBe('FED_PRIVACY_SECAGG_UPDATE');
    expectSilence(site('s00'));
  });

  test('of another size than the plan says is a RangeError', () => {
    const { deliveries, site } = upTo();
    const mine = deliveries().get('s00')!;
    expect(() => site('s00').mask(mine, [new Float32Array(4)], 1)).toThrow('an update of 4 values');
    expectSilence(site('s00'));
  });
});

test('an aborted site has no secrets, and settings that can’t be used are refused by name', () => {
  const site = federation(3).site('s00');
  site.abort();
  expectSilence(site);
  for (const wrong of [
    { round: 0 },
    { attempt: '' },
    { attempt: 'a'.repeat(65) },
    { attempt: 'a b' },
    { attempt: undefined as unknown as string },
    { parameters: 0 },
    { cohort: ['a', 'b', 'b'] },
    { modelDigest: 'no digest' },
    { configurationDigest: 'ABC' },
  ])
    expect(
      codeOf(
        () => new SecaggCoordinator({ ...federation(3), settings: { ...federation(3).settings, ...wrong } }),
      ),
    ).toBe('FED_PRIVACY_PARAMETER');
  const members = federation(3);
  expect(
    () =>
      new SecaggSite({
        settings: members.settings,
        site: 's07',
        roster: members.roster,
        sign: members.sign('s00'),
      }),
  ).toThrow("'s07', is not in the cohort");
});
