/**
 * A site's own books of what it has spent of its privacy in a run: a line for each update, on disk before the
 * update can leave, never changed afterwards. A coordinator that keeps other books, or none, changes nothing here.
 */
import { z } from 'zod';
import { type AppendOnly, openAppendOnly } from '../agent/append-only.ts';

const everyEntry = {
  /** Unix millis. */
  at: z.number(),
  round: z.int().min(0),
  /** Digest of the global model that was trained on. */
  base: z.string(),
  noiseMultiplier: z.number().positive(),
  clippingNorm: z.number().positive(),
};
const entrySchema = z.union([
  /** Of records. */
  z.strictObject({
    ...everyEntry,
    trainExamples: z.int().min(1),
    batchSize: z.int().min(1),
    /** Batches of the round. */
    steps: z.int().min(1),
  }),
  /** Of the site as a whole. */
  z.strictObject({
    ...everyEntry,
    unit: z.literal('site'),
    /** Where the noise is added in shares: the clipping norm, in steps of the sum. */
    normInSteps: z.number().positive().optional(),
  }),
]);
export type PrivacyEntry = z.infer<typeof entrySchema>;
export type PrivacyLedger = AppendOnly<PrivacyEntry>;

/** Opens the ledger at `path`, which need not be there yet. Throws FED_WORKER_STATE_UNUSABLE for one that is damaged. */
export function openPrivacyLedger(path: string): PrivacyLedger {
  return openAppendOnly({
    path,
    schema: entrySchema,
    what: 'the site’s privacy ledger',
    otherwise: {
      unwritten: 'no update leaves until it can',
      forgotten: 'what was spent of this site’s privacy must not be forgotten',
    },
  });
}
