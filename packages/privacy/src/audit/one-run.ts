/**
 * An audit by a single run: of m canaries each is put in or left out by a fair coin, and afterwards somebody guesses
 * which were in. The more guesses are right, the less private the run can have been (Steinke, Nasr and Jagielski 2023,
 * arXiv 2305.08846).
 */
import { binomialUpperTail } from './incomplete-beta.ts';

export interface OneRunGuesses {
  /** Canaries, in or out: m. */
  readonly canaries: number;
  /** Those that were guessed at, the others being too doubtful: r. How many has to be fixed before the coins are seen. */
  readonly guesses: number;
  /** Guesses that were right: v. */
  readonly correct: number;
}

/** Epsilons above it are not looked for. */
const MAX_EPSILON = 64;
const HALVINGS = 60;

/**
 * Returns an epsilon that the run exceeds or reaches with probability `confidence` or more: the largest that `correct`
 * or more right guesses refute. 0 when they refute none.
 *
 * Throws RangeError unless 0 <= correct <= guesses <= canaries, all whole, guesses >= 1, delta in [0, 1) and
 * confidence in (0, 1).
 */
export function oneRunEpsilonLowerBound(guesses: OneRunGuesses, delta: number, confidence = 0.95): number {
  check(guesses, delta, confidence);
  const alpha = 1 - confidence;
  // What is not (epsilon, delta) private is not so for a smaller epsilon either: each epsilon refuted is a bound.
  let [refuted, high] = [0, MAX_EPSILON];
  for (let i = 0; i < HALVINGS; i++) {
    const middle = (refuted + high) / 2;
    if (probabilityOf(guesses, middle, delta) < alpha) refuted = middle;
    else high = middle;
  }
  return refuted;
}

/**
 * The largest probability with which an (epsilon, delta) private run lets somebody be right so often: their main
 * theorem. For delta 0 a guess is right as if by randomised response, with probability e^epsilon / (1 + e^epsilon).
 */
function probabilityOf(
  { canaries, guesses, correct }: OneRunGuesses,
  epsilon: number,
  delta: number,
): number {
  const rate = 1 / (1 + Math.exp(-epsilon));
  const enough = binomialUpperTail(guesses, rate, correct);
  if (delta === 0) return enough;
  let steepest = 0;
  for (let fewer = 1; fewer <= correct; fewer++) {
    const nearly = binomialUpperTail(guesses, rate, correct - fewer) - enough;
    steepest = Math.max(steepest, nearly / fewer);
    // No later quotient can be larger: no probability exceeds 1.
    if ((1 - enough) / fewer <= steepest) break;
  }
  return Math.min(1, enough + 2 * canaries * delta * steepest);
}

function check({ canaries, guesses, correct }: OneRunGuesses, delta: number, confidence: number): void {
  if (![canaries, guesses, correct].every(Number.isSafeInteger) || guesses < 1)
    throw new RangeError(
      `canaries, guesses and correct are whole, guesses from 1: ${[canaries, guesses, correct]}`,
    );
  if (correct < 0 || correct > guesses || guesses > canaries)
    throw new RangeError(
      `0 <= correct <= guesses <= canaries does not hold: ${[correct, guesses, canaries]}`,
    );
  if (!(delta >= 0 && delta < 1)) throw new RangeError(`delta is in [0, 1), not ${delta}`);
  if (!(confidence > 0 && confidence < 1))
    throw new RangeError(`confidence is between 0 and 1, not ${confidence}`);
}
