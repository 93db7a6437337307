/** One image's random transform: what is drawn, and in exactly the order in which Keras draws it. */
import type { AffineParams } from './matrix.ts';
import type { Mt19937 } from './mt19937.ts';
import type { ResolvedOptions, ShiftRange } from './options.ts';

export interface RandomTransform extends AffineParams {
  flipHorizontal: boolean;
  flipVertical: boolean;
  /** Added to every channel; null: not asked for. */
  channelShiftIntensity: number | null;
  /** A factor; null: not asked for. */
  brightness: number | null;
}

export const IDENTITY: RandomTransform = {
  theta: 0,
  tx: 0,
  ty: 0,
  shear: 0,
  zx: 1,
  zy: 1,
  flipHorizontal: false,
  flipVertical: false,
  channelShiftIntensity: null,
  brightness: null,
};

/** Returns the next transform of `random`'s stream; height and width in pixels. Ranges of zero draw nothing. */
export function drawTransform(
  options: ResolvedOptions,
  height: number,
  width: number,
  random: Mt19937,
): RandomTransform {
  const symmetric = (range: number) => (range ? random.uniform(-range, range) : 0);
  const theta = symmetric(options.rotationRange);
  const tx = drawShift(options.heightShiftRange, height, random);
  const ty = drawShift(options.widthShiftRange, width, random);
  const shear = symmetric(options.shearRange);
  const [low, high] = options.zoom;
  const zooms = low !== 1 || high !== 1;
  const zx = zooms ? random.uniform(low, high) : 1;
  const zy = zooms ? random.uniform(low, high) : 1;
  // Both flips draw even when they are off.
  const flipHorizontal = random.random() < 0.5 && options.horizontalFlip;
  const flipVertical = random.random() < 0.5 && options.verticalFlip;
  const channelShiftIntensity = options.channelShiftRange ? symmetric(options.channelShiftRange) : null;
  const { brightnessRange } = options;
  const brightness = brightnessRange ? random.uniform(brightnessRange[0], brightnessRange[1]) : null;
  return { theta, tx, ty, shear, zx, zy, flipHorizontal, flipVertical, channelShiftIntensity, brightness };
}

function drawShift(range: ShiftRange, extent: number, random: Mt19937): number {
  if (range === 0) return 0;
  const sign = () => random.pick([-1, 1]);
  let shift: number;
  let largest: number;
  if (typeof range === 'number' || 'uniform' in range) {
    largest = typeof range === 'number' ? range : range.uniform;
    if (largest === 0) return 0;
    const whole = typeof range === 'number' && Number.isInteger(range) && range > 0;
    shift = whole ? random.choice(range) * sign() : random.uniform(-largest, largest);
  } else {
    largest = Math.max(...range);
    shift = random.pick(range) * sign();
  }
  return largest < 1 ? shift * extent : shift;
}
