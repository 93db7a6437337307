export { type Lateness, watchLateness } from './lateness.ts';
export { maxAbsDifference, once, withCode } from './matchers.ts';
export type {
  ScriptedJob,
  ScriptedUpdate,
  ScriptedWorker,
  ScriptedWorkerOptions,
  SecaggStage,
} from './scripted-worker.ts';
export { keyFrom, startScriptedWorker } from './scripted-worker.ts';
export { gaussians, seededWords } from './seeded-words.ts';
