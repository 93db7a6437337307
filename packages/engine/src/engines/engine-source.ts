/**
 * What every engine module answers: can this machine run it, and if so, please do. The order table in
 * load-engine.ts holds the sources; a new engine is one more file beside this one.
 */
import type { KernelBackend } from '@tensorflow/tfjs-core';
import { EngineError } from '../errors.ts';
import * as tf from '../tf.ts';

export const ENGINE_NAMES = ['tensorflow', 'webgpu', 'onnxruntime', 'wasm', 'cpu'] as const;
export type EngineName = (typeof ENGINE_NAMES)[number];

/** Imports a package by name; tests pass their own to play a machine that has or lacks something. */
export type ImportModule = (specifier: string) => Promise<unknown>;

export interface ProbeOptions {
  readonly importModule: ImportModule;
  readonly allowSoftwareAdapter: boolean;
  /** Threads asked for; undefined leaves the choice to the engine. */
  readonly threads: number | undefined;
}

/** A fact that was measured here, such as `simd: true`. */
export type EngineFacts = Readonly<Record<string, string | number | boolean>>;

export type Probe =
  /** Loaded: its backend is registered and initialised with TensorFlow.js. */
  | {
      readonly state: 'ready';
      /** The name under which TensorFlow.js knows the backend. */
      readonly backend: string;
      /** Whether it computes on a GPU. */
      readonly accelerated: boolean;
      /** For people: "WebAssembly, SIMD, one thread". */
      readonly description: string;
      readonly facts: EngineFacts;
    }
  /** Not installed; `install` is the thing to do. */
  | { readonly state: 'absent'; readonly reason: string; readonly install: string }
  /** Installed, but it can't run here. */
  | { readonly state: 'failed'; readonly reason: string; readonly install?: string };

export interface EngineSource {
  readonly name: EngineName;
  probe(options: ProbeOptions): Promise<Probe>;
}

/** Whether an import failed because that very package isn't installed (and not one of its own dependencies). */
export function isMissingModule(error: unknown, specifier: string): boolean {
  if (!(error instanceof Error) || !('code' in error)) return false;
  if (error.code !== 'ERR_MODULE_NOT_FOUND' && error.code !== 'MODULE_NOT_FOUND') return false;
  return error.message.includes(`'${specifier}'`);
}

/** The first line of an error's message: a reason that fits in a sentence. */
export function briefly(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return (text.split('\n')[0] ?? '').trim().replace(/\.$/, '') || 'no reason was given';
}

/**
 * Makes `backend` current and returns it.
 *
 * Throws FED_ENGINE_DUPLICATE_CORE when it was built on another copy of tfjs-core than `tf`: such a backend seems to
 * work until gradients, kernels or `instanceof` meet the wrong registry.
 */
export async function startBackend(engine: EngineName, backend: string): Promise<KernelBackend> {
  if (!(await tf.setBackend(backend)))
    throw new Error(`TensorFlow.js could not start its "${backend}" backend`);
  await tf.ready();
  const started = tf.backend();
  if (!(started instanceof tf.KernelBackend)) {
    throw new EngineError(
      'FED_ENGINE_DUPLICATE_CORE',
      engine,
      `The engine "${engine}" was loaded with another copy of @tensorflow/tfjs-core than Tributary's ` +
        `${tf.version_core}. Install the same version of every @tensorflow package, then remove duplicates (npm dedupe).`,
    );
  }
  return started;
}
