/** Starts ONNX Runtime as the backend does, and ends. */
import { Runtime } from '../src/runtime.ts';

new Runtime({ device: 'cpu', threads: 1, spin: false, arena: true });
