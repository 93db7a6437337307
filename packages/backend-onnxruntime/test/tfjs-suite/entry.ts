/** The bundle's entry: first the setup, then every test of tfjs-core. */
import './setup.ts';
import '@tensorflow/tfjs-core/dist/tests.js';
