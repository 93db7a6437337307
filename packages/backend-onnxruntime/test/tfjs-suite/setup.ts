/**
 * Goes before the tests of tfjs-core in their bundle: the one engine, all gradients and chained methods, the backends,
 * and which of them is under test (from the environment: the tests register themselves while they are imported).
 */
import '@tensorflow/tfjs-core/dist/index.js';
import '@tensorflow/tfjs-core/dist/register_all_gradients.js';
import '@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops.js';
import '@tensorflow/tfjs-backend-cpu';
import { setTestEnvs } from '@tensorflow/tfjs-core/dist/jasmine_util.js';
import { registerOnnxRuntime } from '../../src/register.ts';

registerOnnxRuntime({ warn: false }, 'onnxruntime');
registerOnnxRuntime({ warn: false, mode: 'eager' }, 'onnxruntime-eager');

const backendName = process.env['TFJS_SUITE_BACKEND'] ?? 'cpu';
setTestEnvs([{ name: backendName, backendName, isDataSync: true }]);
