/** The bundle's entry: first the setup, then every test of tfjs-core. */
// biome-ignore assist/source/organizeImports: the setup has to come first.
import './setup.ts';
import '@tensorflow/tfjs-core/dist/tests';
