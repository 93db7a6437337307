/** Keras's image pipeline by itself: `@tributary/worker/images`. */

export type { FillMode, Sampling } from './affine.ts';
export { ArrayFlow, type ArrayFlowOptions, type FlowBatch } from './array-flow.ts';
export { augmentBatch, type BatchedTf } from './batched.ts';
export { scaleBrightness, shiftChannels } from './colour.ts';
export {
  type ColorMode,
  convertColour,
  decodeImage,
  type LoadOptions,
  loadImage,
  MAX_PIXELS,
} from './decode.ts';
export {
  type ClassMode,
  type DirectoryBatch,
  DirectoryFlow,
  type DirectoryFlowOptions,
} from './directory-flow.ts';
export { type FitOptions, ImageDataGenerator } from './image-data-generator.ts';
export { type Affine, type AffineParams, affineMatrix, type Variant } from './matrix.ts';
export { Mt19937 } from './mt19937.ts';
export type { ImageDataGeneratorOptions, ResolvedOptions, ShiftRange } from './options.ts';
export {
  type DataFormat,
  type Floats,
  type ImageArray,
  type ImageBatch,
  type Pixels,
  type Size,
  sizeOf,
} from './pixels.ts';
export type { RandomTransform } from './random-transform.ts';
export { type Box, centreBox, type Interpolation, type Raster, resize } from './resize.ts';
export type { Statistics } from './statistics.ts';
