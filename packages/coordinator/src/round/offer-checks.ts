/** What an offer must say before a byte of its update is asked for. */
import { type MessageOf, parameterCount } from '@tributary/shared-protocol';
import type { TensorShape } from '../config/resolve.ts';
import { CoordinatorError } from '../errors.ts';
import { HEADER_SLACK_BYTES } from './pull.ts';

/** Examples of one update: below this. */
export const MAX_EXAMPLES = 2 ** 29;
/** Numbers that may come along with an update. */
export const MAX_METRICS = 64;

/** The round as an offer sees it. */
export interface OpenRound {
  readonly round: number;
  readonly cohort: readonly string[];
  readonly base: string;
}

/** An offer of an update as it is. */
export type PlainOffer = MessageOf<'offer'> & { readonly numExamples: number };

/**
 * Checks the round, the base model, the sender and the numbers of an offer.
 *
 * @throws CoordinatorError FED_UPDATE_STALE, FED_UPDATE_ROUND, FED_UPDATE_LATE, FED_UPDATE_UNINVITED, FED_UPDATE_BASE,
 *   FED_UPDATE_EXAMPLES, FED_UPDATE_METRICS, FED_UPDATE_SIZE
 */
export function checkOffer(
  offer: MessageOf<'offer'>,
  name: string,
  open: OpenRound | undefined,
  lastRound: number,
  manifest: readonly TensorShape[],
): asserts offer is PlainOffer {
  checkRound(offer, name, open, lastRound);
  const { numExamples = Number.NaN } = offer;
  if (!Number.isSafeInteger(numExamples) || numExamples < 1 || numExamples >= MAX_EXAMPLES) {
    throw new CoordinatorError(
      'FED_UPDATE_EXAMPLES',
      `numExamples is ${offer.numExamples}; expected a whole number from 1 to ${MAX_EXAMPLES - 1}`,
    );
  }
  const metrics = Object.entries(offer.metrics);
  if (metrics.length > MAX_METRICS || metrics.some(([key]) => key.length > 64)) {
    throw new CoordinatorError(
      'FED_UPDATE_METRICS',
      `${metrics.length} metrics; at most ${MAX_METRICS}, with names of at most 64 characters`,
    );
  }
  const bytes = 4 * parameterCount(manifest);
  if (offer.update.bytes < bytes || offer.update.bytes > bytes + HEADER_SLACK_BYTES) {
    throw new CoordinatorError(
      'FED_UPDATE_SIZE',
      `the update is declared as ${offer.update.bytes} bytes; the model's tensors take ${bytes}`,
    );
  }
}

/**
 * Checks that an update is for the open round, by one of its sites, and relative to its model.
 *
 * @throws CoordinatorError FED_UPDATE_STALE, FED_UPDATE_ROUND, FED_UPDATE_LATE, FED_UPDATE_UNINVITED, FED_UPDATE_BASE
 */
export function checkRound(
  offer: Pick<MessageOf<'offer'>, 'round' | 'base'>,
  name: string,
  open: OpenRound | undefined,
  lastRound: number,
): void {
  if (!open || offer.round !== open.round) {
    const current = open?.round ?? lastRound;
    if (offer.round === lastRound) {
      throw new CoordinatorError(
        'FED_UPDATE_LATE',
        `round ${offer.round} has closed without this update; the next plan brings a new model`,
      );
    }
    if (offer.round < current) {
      throw new CoordinatorError(
        'FED_UPDATE_STALE',
        `the update is for round ${offer.round}, and round ${current} is ${open ? 'open' : 'the last that closed'}`,
      );
    }
    throw new CoordinatorError(
      'FED_UPDATE_ROUND',
      `the update is for round ${offer.round}, which has not begun; round ${current} is ${open ? 'open' : 'the last that closed'}`,
    );
  }
  if (!open.cohort.includes(name)) {
    throw new CoordinatorError(
      'FED_UPDATE_UNINVITED',
      `"${name}" is not in the cohort of round ${open.round}`,
    );
  }
  if (offer.base !== open.base) {
    throw new CoordinatorError(
      'FED_UPDATE_BASE',
      `the update is relative to model ${offer.base.slice(0, 12)}..., and round ${open.round} started from ${open.base.slice(0, 12)}...`,
    );
  }
}
