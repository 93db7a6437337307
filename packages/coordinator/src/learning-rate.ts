/** The learning rate of a round: the optimizer's, times the schedule's factor. */
import type { TrainingPlan } from '@tributary/shared-protocol';

export type TrainingRates = Pick<TrainingPlan, 'optimizer' | 'learningRateSchedule'>;

/** Above 0; `round` is from 1, and the first round has the optimizer's own rate. */
export function learningRateAt(
  { optimizer, learningRateSchedule: schedule }: TrainingRates,
  round: number,
): number {
  const rate = optimizer.learningRate;
  switch (schedule.kind) {
    case 'constant':
      return rate;
    case 'step':
      return rate * schedule.factor ** Math.floor((round - 1) / schedule.everyRounds);
    case 'exponential':
      return rate * schedule.factor ** (round - 1);
    case 'cosine': {
      const share = Math.min(1, (round - 1) / schedule.totalRounds);
      const factor = schedule.minFactor + ((1 - schedule.minFactor) * (1 + Math.cos(Math.PI * share))) / 2;
      // At the end of a schedule that goes to 0 the rate stays positive, as the optimizers ask.
      return Math.max(rate * factor, Number.MIN_VALUE);
    }
  }
}
