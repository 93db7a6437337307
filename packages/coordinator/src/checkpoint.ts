/** The global model on disk and in memory: safetensors files, and one tensor frame that is encoded once a round. */
import { readFileSync } from 'node:fs';
import {
  decodeFrame,
  decodeSafetensors,
  encodeFrame,
  safetensorsParts,
  type Tensor,
} from '@tributary/shared-protocol';
import type { TensorShape } from './config/resolve.ts';
import { CoordinatorError } from './errors.ts';
import { writeFileAtomic } from './run/atomic-file.ts';
import type { StrategyState } from './strategy.ts';

/** Strategy tensors lie beside the weights under this prefix, which no layer's name starts with. */
const STATE_PREFIX = '//strategy/';

export interface GlobalModel {
  /** The weights as views of `frame`. */
  readonly tensors: readonly Tensor[];
  /** What is broadcast. */
  readonly frame: Uint8Array;
}

/** Copies `tensors` into a frame; the same values give the same bytes. */
export function globalModel(tensors: readonly Tensor[]): GlobalModel {
  const frame = encodeFrame(tensors);
  return { frame, tensors: decodeFrame(frame, { verifyDigests: false }).tensors };
}

/**
 * Writes weights and strategy state, whole or not at all; they must not change until it resolves.
 *
 * @throws CoordinatorError FED_RUN_STORAGE
 */
export function writeCheckpoint(
  path: string,
  content: {
    readonly round: number;
    readonly tensors: readonly Tensor[];
    readonly state: StrategyState;
    readonly config: string;
  },
): Promise<void> {
  const { round, tensors, state, config } = content;
  const parts = safetensorsParts(
    [...tensors, ...state.tensors.map((t) => ({ ...t, name: STATE_PREFIX + t.name }))],
    { round: String(round), config, strategy: JSON.stringify(state.numbers) },
  );
  return writeFileAtomic(path, parts, { crashName: 'coordinator:checkpoint' });
}

/**
 * The weights (in the order of `shapes`) and strategy state of a checkpoint.
 *
 * @throws CoordinatorError FED_RUN_CHECKPOINT when it is missing, damaged or of another model
 */
export function readCheckpoint(
  path: string,
  shapes: readonly TensorShape[],
): { readonly tensors: Tensor[]; readonly state: StrategyState } {
  try {
    const { tensors, metadata } = decodeSafetensors(readFileSync(path));
    const byName = new Map(tensors.map((t) => [t.name, t]));
    return {
      tensors: shapes.map(({ name, shape }) => {
        const tensor = byName.get(name);
        if (!tensor || tensor.shape.join() !== shape.join())
          throw new Error(`it has no tensor ${name} of shape [${shape.join(', ')}]`);
        return tensor;
      }),
      state: {
        tensors: tensors
          .filter((t) => t.name.startsWith(STATE_PREFIX))
          .map((t) => ({ ...t, name: t.name.slice(STATE_PREFIX.length) })),
        numbers: JSON.parse(metadata['strategy'] ?? '{}') as Record<string, number>,
      },
    };
  } catch (error) {
    throw new CoordinatorError(
      'FED_RUN_CHECKPOINT',
      `${path} can't be read: ${error instanceof Error ? error.message : String(error)}. Restore it from a copy, or start a new run in another runDir`,
      { cause: error },
    );
  }
}
