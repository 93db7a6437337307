/**
 * A TensorFlow.js backend on ONNX Runtime. Importing it is enough:
 *
 *   import * as tf from '@tensorflow/tfjs-core';
 *   import '@tributary/backend-onnxruntime';
 *   await tf.setBackend('onnxruntime');
 */
import { registerOnnxRuntime } from './register.ts';

export type { FlushReason, FlushRecord } from './backend.ts';
export { OnnxRuntimeBackend } from './backend.ts';
export type { BackendErrorCode } from './errors.ts';
export { BACKEND_ERROR_CODES, BackendError } from './errors.ts';
export type { ExplainedFlush, Explanation, TimeShare } from './explain.ts';
export type { BackendOptions } from './options.ts';
export type { RepeatedStep } from './repeat.ts';
export type { Device } from './runtime.ts';
export { registerOnnxRuntime };

registerOnnxRuntime();
