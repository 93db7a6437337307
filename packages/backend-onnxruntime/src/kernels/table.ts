/** All kernels that have an ONNX form, by their TensorFlow.js name. */
import { convolutions } from './conv.ts';
import { elementwise } from './elementwise.ts';
import { images } from './image.ts';
import { indexing } from './indexing.ts';
import type { KernelTable } from './kernel.ts';
import { layout } from './layout.ts';
import { normalization } from './norm.ts';
import { pooling } from './pool.ts';
import { products } from './product.ts';
import { reductions } from './reduction.ts';

export const kernelTable: KernelTable = {
  ...elementwise,
  ...reductions,
  ...products,
  ...layout,
  ...indexing,
  ...convolutions,
  ...pooling,
  ...normalization,
  ...images,
};
