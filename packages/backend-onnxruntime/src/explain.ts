/** What happened in a step, for a person to read: flushes and why, time by operator and by kernel, memory. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FlushRecord } from './backend.ts';
import type { Device } from './runtime.ts';

/** Time spent in one operator, or in the operators that one kernel turned into. */
export interface TimeShare {
  readonly name: string;
  readonly milliseconds: number;
  /** Nodes that ran; fewer than were traced, because ONNX Runtime merges and drops some. */
  readonly count: number;
}

/** One graph of the step. */
export interface ExplainedFlush extends FlushRecord {
  /** Estimate of the most that its results take at one time, in bytes. */
  readonly peakBytes: number;
  /** By ONNX operator, the slowest first. */
  readonly byOperator: readonly TimeShare[];
  /** By TensorFlow.js kernel, the slowest first. */
  readonly byKernel: readonly TimeShare[];
}

export interface Explanation {
  readonly flushes: readonly ExplainedFlush[];
  /** Wall time of the step, JavaScript included. */
  readonly milliseconds: number;
  /** Calls in the step that ran in JavaScript, by kernel. */
  readonly fallbacks: Readonly<Record<string, number>>;
  /** As a table. */
  toString(): string;
}

/** A node's run, as the profile has it. */
interface NodeTime {
  readonly operator: string;
  readonly kernel: string;
  readonly milliseconds: number;
}

/** A folder for profiles, and what the latest run of a session said in them. */
export class Profiles {
  readonly #folder = mkdtempSync(join(tmpdir(), 'onnxruntime-profile-'));
  #count = 0;

  /** Prefix for the next session's profile. */
  next(): string {
    return join(this.#folder, `${this.#count++}-`);
  }

  /**
   * Times of the last run that was profiled under the prefix; the session has ended its profiling. On a GPU, operators
   * that its provider doesn't have are marked: each costs a copy to the processor and back.
   */
  lastRun(prefix: string, device: Device): NodeTime[] {
    const file = readdirSync(this.#folder).find((name) => join(this.#folder, name).startsWith(prefix));
    if (file === undefined) return [];
    const events = JSON.parse(readFileSync(join(this.#folder, file), 'utf8')) as ProfileEvent[];
    const lastStart = Math.max(
      ...events.filter((event) => event.name === 'model_run').map((event) => event.ts),
    );
    return events.flatMap(({ cat, name, ts, dur, args }) =>
      cat === 'Node' && name.endsWith('_kernel_time') && ts >= lastStart
        ? [{ operator: operatorOf(args, device), kernel: kernelOf(name), milliseconds: dur / 1000 }]
        : [],
    );
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

interface ProfileEvent {
  readonly cat: string;
  readonly name: string;
  readonly ts: number;
  readonly dur: number;
  readonly args: { readonly op_name?: string; readonly provider?: string };
}

function operatorOf({ op_name = '?', provider }: ProfileEvent['args'], device: Device): string {
  return device !== 'cpu' && provider === 'CPUExecutionProvider' ? `${op_name} (on the CPU)` : op_name;
}

/** Nodes are named "12:Conv2D"; those that ONNX Runtime made itself have other names. */
function kernelOf(name: string): string {
  return (
    /(?:^|[^\d])\d+:(\w+?)(?:_kernel_time|_|\/)/.exec(name)?.[1] ??
    /^\d+:(\w+?)_kernel_time/.exec(name)?.[1] ??
    '(ONNX Runtime)'
  );
}

export function shares(times: readonly NodeTime[], by: 'operator' | 'kernel'): TimeShare[] {
  const totals = new Map<string, { milliseconds: number; count: number }>();
  for (const time of times) {
    const total = totals.get(time[by]) ?? { milliseconds: 0, count: 0 };
    total.milliseconds += time.milliseconds;
    total.count++;
    totals.set(time[by], total);
  }
  return [...totals]
    .map(([name, total]) => ({ name, ...total }))
    .sort((a, b) => b.milliseconds - a.milliseconds);
}

export function describe(explanation: Omit<Explanation, 'toString'>): string {
  const lines = [`Step: ${ms(explanation.milliseconds)}, ${explanation.flushes.length} flush(es).`];
  for (const flush of explanation.flushes) {
    const where = flush.kernel === '' ? '' : ` by ${flush.kernel}`;
    lines.push(
      '',
      `Flush (${flush.reason}${where}): ${flush.nodes} nodes, ${flush.inputs} inputs, ${flush.outputs} outputs, ` +
        `${ms(flush.milliseconds)}${flush.compiled ? ', compiled' : ''}, at most ${(flush.peakBytes / 2 ** 20).toFixed(0)} MiB`,
    );
    for (const [title, list] of [
      ['operator', flush.byOperator],
      ['kernel', flush.byKernel],
    ] as const) {
      lines.push(`  by ${title}`);
      for (const { name, milliseconds, count } of list.slice(0, 16)) {
        lines.push(`    ${milliseconds.toFixed(2).padStart(9)} ms  ${String(count).padStart(4)} x  ${name}`);
      }
    }
  }
  const fallbacks = Object.entries(explanation.fallbacks);
  if (fallbacks.length > 0) {
    lines.push('', `In JavaScript: ${fallbacks.map(([kernel, calls]) => `${kernel} (${calls})`).join(', ')}`);
  }
  return lines.join('\n');
}

const ms = (milliseconds: number): string => `${milliseconds.toFixed(1)} ms`;
