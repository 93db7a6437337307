/**
 * What a site's policy may say: the keys of `site-policy.yaml`, each with the range of its values. A key that is left
 * out sets no rule. Sizes may be written with a unit, times as people write them.
 */
import type { EngineName } from '@tributary/engine';
import { isPublicKey } from '@tributary/shared-protocol';
import { z } from 'zod';
import { parseAddress } from './addresses.ts';
import { DAY_NAMES, parseDays, parseTimes } from './hours.ts';

const ENGINES = [
  'tensorflow',
  'webgpu',
  'onnxruntime',
  'wasm',
  'cpu',
] as const satisfies readonly EngineName[];

const UNITS: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};
const SIZE_HINT = 'expected a size such as 4 GiB or 500 MB, or a whole number of bytes';

/** Bytes, from a number or a text with a unit. */
const size = z
  .union([z.int().positive(), z.string()], { error: SIZE_HINT })
  .transform((value, context): number => {
    if (typeof value === 'number') return value;
    const [, digits, unit = 'B'] = /^(\d+(?:\.\d+)?)\s*([kKMGT]i?B|B)?$/.exec(value.trim()) ?? [];
    const bytes = digits === undefined ? 0 : Math.floor(Number(digits) * (UNITS[unit] ?? Number.NaN));
    if (bytes > 0) return bytes;
    context.addIssue({ code: 'custom', message: SIZE_HINT });
    return z.NEVER;
  });

/** A SHA-256 as OpenSSL, sha256sum or our own messages show it, in lower-case hex. */
export function parseDigest(text: string): string | undefined {
  const plain = text
    .trim()
    .replace(/^sha-?256[:=]?\s*/i, '')
    .replaceAll(':', '')
    .toLowerCase();
  return /^[0-9a-f]{64}$/.test(plain) ? plain : undefined;
}

const digest = z.string().transform((text, context): string => {
  const plain = parseDigest(text);
  if (plain !== undefined) return plain;
  context.addIssue({ code: 'custom', message: 'expected a SHA-256: 64 hexadecimal digits' });
  return z.NEVER;
});

const ADDRESS_HINT =
  'expected an address such as https://coordinator.example.org:7700 or https://*.example.org';
const address = z.string().transform((text, context) => {
  const pattern = parseAddress(text);
  if (pattern !== undefined) return pattern;
  context.addIssue({ code: 'custom', message: ADDRESS_HINT });
  return z.NEVER;
});

/** One coordinator: an address, the fingerprint of a certificate, or both, of which both must then fit. */
const coordinator = z.union(
  [
    z.string().transform((text, context) => {
      const fingerprint = parseDigest(text);
      if (fingerprint !== undefined) return { fingerprint };
      const url = parseAddress(text);
      if (url !== undefined) return { url };
      context.addIssue({ code: 'custom', message: `${ADDRESS_HINT}, or a certificate's SHA-256` });
      return z.NEVER;
    }),
    z
      .strictObject({ url: address.optional(), fingerprint: digest.optional() })
      .refine(
        (one) => one.url !== undefined || one.fingerprint !== undefined,
        'expected url, fingerprint or both',
      ),
  ],
  { error: `${ADDRESS_HINT}, a certificate's SHA-256, or a map with url and fingerprint` },
);

const TIME_HINT = 'expected times of day such as "20:00-06:00" (until 24:00 at the latest)';
const times = z.string().transform((text, context) => {
  const parsed = parseTimes(text);
  if (parsed !== undefined) return parsed;
  context.addIssue({ code: 'custom', message: TIME_HINT });
  return z.NEVER;
});
const days = z
  .union([z.string(), z.array(z.string()).min(1)])
  .transform((value, context): readonly number[] => {
    const parsed = parseDays(typeof value === 'string' ? value.split(',') : value);
    if (parsed !== undefined) return parsed;
    context.addIssue({
      code: 'custom',
      message: `expected days such as Mon-Fri or [Sat, Sun]; they are ${DAY_NAMES.join(', ')}`,
    });
    return z.NEVER;
  });
/** When training may happen: times of every day, or of the days on which they begin. */
const window = z.union(
  [
    times.transform((time) => ({ ...time, days: [0, 1, 2, 3, 4, 5, 6] as readonly number[] })),
    z
      .strictObject({ time: times, days: days.optional() })
      .transform(({ time, days: on = [0, 1, 2, 3, 4, 5, 6] }) => ({ ...time, days: on })),
  ],
  { error: `${TIME_HINT}, or a map with time and days` },
);

const PEER_HINT = 'expected a site’s public key: 43 letters, digits, dashes and underscores';
const nonEmpty = 'an empty list would allow nothing: name at least one, or leave the key out';

export const policySchema = z.strictObject({
  /** Who may be dialled at all. */
  coordinators: z.array(coordinator).min(1, nonEmpty).optional(),
  /** SHA-256 of the topologies (the Keras JSON text) that may be trained. */
  models: z.array(digest).min(1, nonEmpty).optional(),
  /** The fewest updates, this site's among them, that one may be averaged with. */
  minCohort: z.int().min(1).optional(),
  privacy: z
    .strictObject({
      /** `true`, or the sites that updates may be masked with: their names and public keys, asked of each of them. */
      secureAggregation: z
        .union(
          [
            z.boolean(),
            z.strictObject({ peers: z.record(z.string(), z.string().refine(isPublicKey, PEER_HINT)) }),
          ],
          { error: 'expected true, false, or a map with peers' },
        )
        .optional(),
      /**
       * `true`, or bounds: noise at least so strong (dimensionless), clipping at most so loose (L2 norm). Noise is to be
       * in an update before it leaves, unless `noise` says that the coordinator may add it.
       */
      differentialPrivacy: z
        .union(
          [
            z.boolean(),
            z.strictObject({
              minNoiseMultiplier: z.number().positive().optional(),
              maxClippingNorm: z.number().positive().optional(),
              noise: z.enum(['site', 'coordinator']).optional(),
            }),
          ],
          {
            error:
              'expected true, false, or a map with minNoiseMultiplier, maxClippingNorm and noise (site or coordinator)',
          },
        )
        .optional(),
      /** The most that a run may spend of this site's privacy. */
      budget: z.strictObject({ epsilon: z.number().positive(), delta: z.number().gt(0).lt(1) }).optional(),
    })
    .optional(),
  /** Rounds that this site trains in one run. */
  maxRounds: z.int().min(1).optional(),
  /** When training and evaluating are allowed, in local time. */
  hours: z
    .union([z.array(window).min(1, nonEmpty), window.transform((one) => [one])], {
      error: `${TIME_HINT}, a map with time and days, or a list of these`,
    })
    .optional(),
  /** Sent and received together, in bytes, in one day of local time. */
  maxBytesPerDay: size.optional(),
  engines: z.array(z.enum(ENGINES)).min(1, nonEmpty).optional(),
  /** Resident memory of the trainer process, in bytes. */
  maxMemory: size.optional(),
  /** Threads that the trainer computes and decodes with. */
  threads: z.int().min(1).max(1024).optional(),
});

/** A policy with every size in bytes and every time parsed. */
export type SitePolicy = z.output<typeof policySchema>;
export type PolicyKey = keyof SitePolicy;
