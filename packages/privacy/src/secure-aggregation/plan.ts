/** What all parties of a round know before it begins, checked, with what follows from it. */
import { PrivacyError } from '../errors.ts';
import { fieldDigest } from './fields.ts';
import { type FixedPoint, type FixedPointSettings, planFixedPoint } from './fixed-point.ts';
import { packedBytes } from './packing.ts';

/** With fewer, a sum tells each site the sum of at most one other: it hides nobody. */
export const FEWEST_SITES = 3;
const DIGEST = /^[0-9a-f]{64}$/;
const ATTEMPT = /^[A-Za-z0-9_-]{1,64}$/;

export interface SecaggSettings {
  readonly run: string;
  /** From 1. No run has the same round twice: keys are bound to it. */
  readonly round: number;
  /**
   * Names this try of the round: 1 to 64 of A–Z, a–z, 0–9, _ and -, new for each try. What is signed for one try is worth
   * nothing in another.
   */
  readonly attempt: string;
  /** Ids of the sites that are asked, at least 3. */
  readonly cohort: readonly string[];
  /** Values of an update. */
  readonly parameters: number;
  readonly fixedPoint: FixedPointSettings;
  /** SHA-256 of the global model that is trained from, in hex. */
  readonly modelDigest: string;
  /** SHA-256 of the federation's configuration, in hex. */
  readonly configurationDigest: string;
  /**
   * Sites that must be there to the end, of those in the cohort; above half of it. A coordinator together with c sites
   * learns nothing while it is above (n + c) / 2. In the complete graph also the shares that give back a secret.
   * @default floor(2n / 3) + 1, which bears c < n / 3
   */
  readonly threshold?: number;
  /**
   * For large cohorts: each site masks with `degree` others, and `threshold` of these, above half of them, give back a
   * secret; `hararyParameters` finds both. @default the complete graph
   */
  readonly harary?: { readonly degree: number; readonly threshold: number };
}

export interface SecaggPlan {
  readonly run: string;
  readonly round: number;
  readonly attempt: string;
  /** Ascending, as JavaScript compares strings. */
  readonly cohort: readonly string[];
  readonly parameters: number;
  readonly fixedPoint: FixedPoint;
  /** Sites that must answer at every stage. */
  readonly threshold: number;
  /** Shares that give back a secret. */
  readonly shareThreshold: number;
  /** Undefined in the complete graph. */
  readonly degree: number | undefined;
  /** Words of a masked vector: the values, the weight, and the part that was clipped. */
  readonly words: number;
  /** Bytes of a masked vector on the wire. */
  readonly packedBytes: number;
  /** SHA-256 of all settings but the model: what everybody must mean by this round. */
  readonly digest: Uint8Array;
  /** SHA-256 of (global model, configuration, round): masks cancel only between sites that have the same. */
  readonly modelBinding: Uint8Array;
}

/**
 * Returns the plan of one try of a round. Throws PrivacyError FED_PRIVACY_PARAMETER for a setting that can't be used,
 * FED_PRIVACY_SECAGG_OVERFLOW when the sum might not fit, FED_PRIVACY_SECAGG_TOO_FEW for a cohort below 3.
 */
export function planRound(settings: SecaggSettings): SecaggPlan {
  const { run, round, attempt, parameters, modelDigest, configurationDigest, harary } = settings;
  const cohort = [...settings.cohort].sort();
  const n = cohort.length;
  check(Number.isSafeInteger(round) && round >= 1, `round is ${round}: it must be an integer from 1`);
  check(
    typeof attempt === 'string' && ATTEMPT.test(attempt),
    `attempt is '${attempt}': it must be 1 to 64 of the letters A to Z and a to z, digits, _ and -`,
  );
  check(
    Number.isSafeInteger(parameters) && parameters >= 1 && parameters <= 2 ** 31,
    `parameters is ${parameters}: it must be an integer from 1 to 2^31`,
  );
  check(new Set(cohort).size === n, 'a site is in the cohort twice');
  check(
    DIGEST.test(modelDigest) && DIGEST.test(configurationDigest),
    'modelDigest and configurationDigest must be SHA-256 in hex',
  );
  if (n < FEWEST_SITES)
    throw new PrivacyError(
      'FED_PRIVACY_SECAGG_TOO_FEW',
      `a cohort of ${n}: a sum hides nobody among fewer than ${FEWEST_SITES}`,
    );
  const threshold = settings.threshold ?? Math.floor((2 * n) / 3) + 1;
  checkThreshold(threshold, n, 'threshold');
  if (harary !== undefined) {
    check(
      Number.isInteger(harary.degree) && harary.degree >= 2 && harary.degree % 2 === 0 && harary.degree < n,
      `harary.degree is ${harary.degree}: it must be an even number from 2, below the ${n} sites of the cohort`,
    );
    checkThreshold(harary.threshold, harary.degree, 'harary.threshold');
  }
  const fixedPoint = planFixedPoint(settings.fixedPoint, n);
  const shareThreshold = harary?.threshold ?? threshold;
  const words = parameters + 2;
  return {
    run,
    round,
    attempt,
    cohort,
    parameters,
    fixedPoint,
    threshold,
    shareThreshold,
    degree: harary?.degree,
    words,
    packedBytes: packedBytes(words, fixedPoint.bits),
    digest: fieldDigest(
      'settings',
      run,
      round,
      attempt,
      cohort,
      parameters,
      threshold,
      shareThreshold,
      harary?.degree ?? 0,
      [fixedPoint.clippingRange, fixedPoint.steps, fixedPoint.maxWeight],
      [fixedPoint.examplesPerWeight, fixedPoint.bits],
    ),
    modelBinding: fieldDigest('model', modelDigest, configurationDigest, round),
  };
}

function checkThreshold(threshold: number, of: number, name: string): void {
  check(
    Number.isInteger(threshold) && threshold >= 2 && threshold <= of && 2 * threshold > of,
    `${name} is ${threshold}: it must be above half of ${of}, else two disjoint halves could unmask twice`,
  );
}

function check(holds: boolean, otherwise: string): void {
  if (!holds) throw new PrivacyError('FED_PRIVACY_PARAMETER', otherwise);
}
