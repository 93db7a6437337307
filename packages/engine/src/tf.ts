/**
 * TensorFlow.js as one namespace: core and layers, without the union package (which adds data, converter and two
 * backends that Node doesn't use). Everything in Tributary that touches tensors takes `tf` from here, so that there is
 * one copy of tfjs-core.
 */
import './chained-methods.ts';

export * from '@tensorflow/tfjs-core';
export * from '@tensorflow/tfjs-layers';
