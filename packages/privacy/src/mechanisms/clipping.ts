/**
 * Bounds what one participant can change: an update is scaled to an L2 norm of at most the clipping norm, taken over
 * all its tensors together (McMahan et al. 2018, arXiv 1710.06963). It is the update that is clipped, never the weights.
 */
import { PrivacyError } from '../errors.ts';

export interface Clipping {
  /** L2 norm over all tensors, before clipping, in the parameters' unit. */
  readonly norm: number;
  /** Whether the norm was above the clipping norm. */
  readonly clipped: boolean;
}

/** Rounding the products to float32 can make the norm grow by this factor, and no more. */
const ROUNDING = 1 + 2 ** -23;

/**
 * Scales `tensors` in place by min(1, clippingNorm / norm) and returns the norm that they had. Afterwards the norm is at
 * most `clippingNorm`, rounding included; an update of zeros stays as it is.
 *
 * Throws FED_PRIVACY_UPDATE_NOT_FINITE for a NaN or an infinity, before anything is changed, and RangeError unless
 * `clippingNorm` is a positive, finite number.
 */
export function clipToNorm(tensors: readonly Float32Array[], clippingNorm: number): Clipping {
  requireClippingNorm(clippingNorm);
  let squares = 0;
  for (const tensor of tensors) {
    for (let i = 0; i < tensor.length; i++) squares += (tensor[i] as number) ** 2;
  }
  // The square of a finite float32 is far below the largest double: what is not finite was so from the start.
  if (!Number.isFinite(squares)) throw notFinite(tensors);
  const norm = Math.sqrt(squares);
  if (norm <= clippingNorm) return { norm, clipped: false };
  const factor = clippingNorm / (norm * ROUNDING);
  for (const tensor of tensors) {
    for (let i = 0; i < tensor.length; i++) tensor[i] = (tensor[i] as number) * factor;
  }
  return { norm, clipped: true };
}

/** Throws RangeError unless `clippingNorm` is a positive, finite number. */
export function requireClippingNorm(clippingNorm: number): void {
  if (!(clippingNorm > 0 && clippingNorm < Number.POSITIVE_INFINITY)) {
    throw new RangeError(`clippingNorm must be a positive, finite number; got ${clippingNorm}`);
  }
}

function notFinite(tensors: readonly Float32Array[]): PrivacyError {
  const tensor = tensors.findIndex((values) => values.some((value) => !Number.isFinite(value)));
  const index = tensors[tensor]!.findIndex((value) => !Number.isFinite(value));
  return new PrivacyError(
    'FED_PRIVACY_UPDATE_NOT_FINITE',
    `The update can't be clipped: tensor ${tensor} has ${tensors[tensor]![index]} at index ${index}.`,
  );
}
