export type { EngineFacts, EngineName, ImportModule } from './engines/engine-source.ts';
export { ENGINE_NAMES } from './engines/engine-source.ts';
export type { EngineErrorCode } from './errors.ts';
export { ENGINE_ERROR_CODES, EngineError } from './errors.ts';
export type { Engine, EngineReport, LoadEngineOptions } from './load-engine.ts';
export { inspectEngines, loadEngine } from './load-engine.ts';
export { seededRandom, withSeededRandom } from './seeded-random.ts';
export * as tf from './tf.ts';
