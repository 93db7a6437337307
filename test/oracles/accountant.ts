/**
 * The accountants against others: a Poisson-subsampled Gaussian a case, its epsilon by Rényi divergences (`rdp`) and by
 * the privacy loss distribution (`pld`), each a case of its own. How far a figure may be off is as the oracle says.
 */
import { epsilonOf, type Mechanism, rdpEpsilon, rdpOf } from '@tributary/privacy';
import { z } from 'zod';
import type { Score, Subject } from './score.ts';

const form = z.object({
  about: z.string().optional(),
  cases: z.array(
    z
      .object({
        noiseMultiplier: z.number(),
        samplingRate: z.number(),
        steps: z.number(),
        delta: z.number(),
        rdp: z.number().optional(),
        pld: z.number().optional(),
        /** In proportion to the figures; in place of what holds otherwise. */
        tolerance: z.number().optional(),
      })
      .refine(({ rdp, pld }) => rdp !== undefined || pld !== undefined, 'a case has rdp, pld or both'),
  ),
});
type Case = z.infer<typeof form>['cases'][number];

export const accountant: Subject = (oracle, score) => {
  form.parse(oracle).cases.forEach((one, i) => {
    const { noiseMultiplier, samplingRate, steps } = one;
    const name = `case ${i} (noise ${noiseMultiplier}, rate ${samplingRate}, ${steps} steps)`;
    try {
      compare(name, one, score);
    } catch (error) {
      score.error(name, error);
    }
  });
};

function compare(name: string, one: Case, score: Score): void {
  const { noiseMultiplier, samplingRate, steps, delta, rdp, pld, tolerance } = one;
  const history: Mechanism[] = [{ kind: 'poisson-gaussian', noiseMultiplier, samplingRate, steps }];
  if (rdp !== undefined) {
    const { epsilon, order } = rdpEpsilon(rdpOf(history), delta);
    // Other accountants' series for fractional orders err upwards, and their orders differ.
    const [below, above] = Number.isInteger(order) ? [1e-5, 1e-5] : [1e-6, 0.02];
    const [least, most] = [1 - (tolerance ?? below), 1 + (tolerance ?? above)];
    score.between(`${name} rdp`, epsilon, rdp, rdp * least, rdp * most);
  }
  if (pld !== undefined) {
    const epsilon = epsilonOf(history, delta, 'pld');
    const [below, above] = tolerance === undefined ? [1e-3, 0.015] : [tolerance * pld, tolerance * pld];
    score.between(`${name} pld`, epsilon, pld, pld - below, pld + above);
  }
}
