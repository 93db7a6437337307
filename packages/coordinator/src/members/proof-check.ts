/** Whether a member's message is from that member, of this link, and new: what it says counts only then. */
import { isProven, type Proof, type SignedMessage } from '@tributary/shared-protocol';
import { CoordinatorError } from '../errors.ts';
import { MAX_CLOCK_SKEW_MS } from './admission.ts';

/** One link's side of it: the counters go up, so nothing need be remembered but the last one. */
export interface ProofCheck {
  /**
   * @throws CoordinatorError FED_SIGNATURE_INVALID, FED_SIGNATURE_REPLAYED, FED_SIGNATURE_CLOCK
   */
  check(message: SignedMessage, publicKey: string): void;
}

/** A proof as the log keeps it, with the session that it is bound to. */
export interface KeptProof extends Proof {
  readonly session: string;
}

export function createProofCheck(runId: string, session: string, now: () => number): ProofCheck {
  let last = -1;
  return {
    check(message, publicKey) {
      const { at, counter } = message.signed;
      // First whether it is this site's at all: a stranger must not move the counter.
      if (!isProven(message, { runId, session }, publicKey)) {
        throw new CoordinatorError(
          'FED_SIGNATURE_INVALID',
          `the signature of "${message.type}" is not this site's, or is of another message, link or run`,
        );
      }
      if (counter <= last) {
        throw new CoordinatorError(
          'FED_SIGNATURE_REPLAYED',
          `"${message.type}" has counter ${counter}, and ${last} was here before: it is a repeat of an old message`,
        );
      }
      last = counter;
      const skew = Math.abs(at - now());
      if (!(skew <= MAX_CLOCK_SKEW_MS)) {
        throw new CoordinatorError(
          'FED_SIGNATURE_CLOCK',
          `"${message.type}" was signed ${Math.round(skew / 1000)} s ${at < now() ? 'ago' : 'from now'} by the site's clock; at most ${MAX_CLOCK_SKEW_MS / 1000} s are allowed: set the clock that is wrong`,
        );
      }
    },
  };
}
