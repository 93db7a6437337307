/** Evaluation at the sites: each that has test images measures the new model; numbers come back, never images. */
import type { BlobRef, Channel, MessageOf } from '@tributary/shared-protocol';
import { CoordinatorError } from '../errors.ts';
import type { Member } from '../members/roster.ts';
import type { UpdateFacts } from '../strategy.ts';
import type { RunContext } from './context.ts';

export interface EvaluationPlan {
  readonly round: number;
  readonly cohort: readonly string[];
  readonly model: BlobRef;
  readonly learningRate: number;
}

export interface Evaluation {
  readonly plan: EvaluationPlan;
  answer(member: Member, evaluation: MessageOf<'evaluation'>): MessageOf<'receipt'>;
  failed(member: Member, failure: MessageOf<'failure'>): void;
  /** A site was expelled: nobody waits for what it measures, and it does not count. */
  expel(name: string): void;
  /**
   * What the sites measured by the deadline, by name; sites that failed or stayed away are missing. Rejects with the
   * signal's reason, before any site is asked when it was aborted already.
   */
  run(): Promise<UpdateFacts[]>;
}

export function createEvaluation(context: RunContext, plan: EvaluationPlan): Evaluation {
  const { roster, now, federation, signal } = context;
  const { round, model } = plan;
  const results = new Map<string, UpdateFacts>();
  const done = new Set<string>();
  /** The link on which each site has its plan. */
  const planned = new Map<string, Channel>();
  const startedAt = now();
  const deadlineAt = startedAt + federation.deadlines.evaluateSeconds * 1000;
  let settle: (() => void) | undefined;
  let timer: NodeJS.Timeout | undefined;

  function graceEnd(name: string): number {
    const member = roster.members.get(name);
    if (!member || member.lostAt === Number.NEGATIVE_INFINITY)
      return member?.channel ? deadlineAt : startedAt;
    if (member.channel) return deadlineAt;
    return Math.min(
      deadlineAt,
      Math.max(member.lostAt, startedAt) + federation.deadlines.rejoinSeconds * 1000,
    );
  }

  function review(): void {
    if (!settle) return;
    clearTimeout(timer);
    const awaited = plan.cohort.filter((name) => !done.has(name) && graceEnd(name) > now());
    if (awaited.length === 0) {
      settle();
      return;
    }
    const wakeAt = Math.min(...awaited.map(graceEnd));
    timer = setTimeout(review, Math.min(2 ** 31 - 1, Math.max(1, wakeAt - now())));
  }

  async function sendPlan(member: Member): Promise<void> {
    const { channel } = member;
    if (!channel || planned.get(member.name) === channel) return;
    planned.set(member.name, channel);
    try {
      await channel.call(
        {
          type: 'plan',
          task: 'evaluate',
          round,
          model,
          learningRate: plan.learningRate,
          deadlineMs: Math.max(0, deadlineAt - now()),
        },
        'ok',
      );
    } catch (error) {
      if (settle)
        await channel.close(
          `the evaluation plan was not taken: ${error instanceof Error ? error.message : error}`,
        );
    }
  }

  return {
    plan,
    answer(member, { round: theirs, model: digest, numExamples, metrics }) {
      if (theirs !== round || digest !== model.digest || !plan.cohort.includes(member.name)) {
        throw new CoordinatorError(
          'FED_EVALUATION_UNEXPECTED',
          `no evaluation of that model is asked of "${member.name}" now; round ${round} is being evaluated`,
        );
      }
      if (!Number.isSafeInteger(numExamples) || numExamples < 0 || Object.keys(metrics).length > 64) {
        throw new CoordinatorError(
          'FED_EVALUATION_UNEXPECTED',
          `${numExamples} examples; expected a whole number from 0, and at most 64 metrics`,
        );
      }
      if (done.has(member.name)) return { type: 'receipt', decision: 'have' };
      results.set(member.name, { name: member.name, numExamples, metrics });
      done.add(member.name);
      review();
      return { type: 'receipt', decision: 'have' };
    },
    failed(member, { code, reason }) {
      if (done.has(member.name) || !plan.cohort.includes(member.name)) return;
      done.add(member.name);
      context.emit({ type: 'client-failed', round, name: member.name, code, reason });
      review();
    },
    expel(name) {
      results.delete(name);
      done.add(name);
      review();
    },
    async run() {
      signal.throwIfAborted();
      const onAbort = () => settle?.();
      const forget = roster.onChange((member) => {
        if (member.ready && plan.cohort.includes(member.name) && !done.has(member.name))
          void sendPlan(member);
        review();
      });
      try {
        await new Promise<void>((resolve) => {
          settle = resolve;
          signal.addEventListener('abort', onAbort, { once: true });
          for (const name of plan.cohort) {
            const member = roster.members.get(name);
            if (member?.ready) void sendPlan(member);
          }
          review();
        });
      } finally {
        settle = undefined;
        clearTimeout(timer);
        forget();
        signal.removeEventListener('abort', onAbort);
      }
      signal.throwIfAborted();
      const silent = plan.cohort.filter((name) => !done.has(name));
      if (silent.length > 0) {
        context.emit({
          type: 'warning',
          message: `round ${round} is evaluated without ${silent.join(', ')}: no answer in time`,
        });
      }
      return [...results.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    },
  };
}
