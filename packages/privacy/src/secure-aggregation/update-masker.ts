/**
 * An update on its way out, piece by piece: encoded as whole numbers, masked, and packed. Nothing of it is kept but up to
 * 64 KiB of words that wait for their piece to be full, so an update may be larger than memory. As a piece has a multiple
 * of 8 values, its packed bytes are whole.
 */
import type { RandomWords } from '../random.ts';
import { encodeFraction, encodeValues } from './fixed-point.ts';
import { PIECE_WORDS } from './mask-kernel.ts';
import { type Mask, openMasks } from './masks.ts';
import { createPacker, packedBytes } from './packing.ts';
import type { SecaggPlan } from './plan.ts';

/**
 * Takes an update in pieces of any length and gives its masked, packed bytes; made by `SecaggSite.beginMask`. The caller
 * may wait between calls as long as it likes. All that it returns, in order, is the `packed` of a `MaskedMessage`. An
 * error of any method ends the site's part in the round, with all secrets erased; after that, and after `finish` or
 * `abort`, `write` and `finish` throw PrivacyError FED_PRIVACY_SECAGG_STAGE.
 */
export interface UpdateMasker {
  /**
   * Takes the next values, which are read and not kept, and returns the packed bytes that are ready: those of full pieces
   * of 16,384 values, so often none. They are a view of memory that the next call writes over. Throws RangeError for more
   * values than the plan says, PrivacyError FED_PRIVACY_SECAGG_UPDATE for one that is not finite.
   */
  write(values: Float32Array): Uint8Array;
  /**
   * Returns the last of the packed bytes, at most 64 KiB, and the part of the values that was clipped. The masks are erased.
   * Throws RangeError for fewer values than the plan says.
   */
  finish(): { readonly packed: Uint8Array; readonly clippedFraction: number };
  /** Ends the site's part in the round, as `SecaggSite.abort` does; nothing after `finish`. */
  abort(): void;
}

/** What an `UpdateMasker` does, without the stages of its site. */
export interface MaskedPacker extends Omit<UpdateMasker, 'abort'> {
  /** Erases what is left of values and masks. Any number of times. */
  end(): void;
}

/**
 * Returns a packer of one update of `weight` under these masks, whose keys are copied and may be erased then. After an
 * error only `end` may be called.
 */
export function createMaskedPacker(
  plan: SecaggPlan,
  masks: readonly Mask[],
  weight: number,
  random: RandomWords,
): MaskedPacker {
  const { parameters, fixedPoint } = plan;
  const { bits } = fixedPoint;
  const stream = openMasks(masks);
  const piece = new Uint32Array(Math.min(PIECE_WORDS, plan.words));
  let filled = 0;
  let written = 0;
  let clipped = 0;
  let packed = new Uint8Array(0);

  /** Makes room for the bytes of this many more words. */
  const reserve = (words: number): void => {
    const bytes = packedBytes(filled + words, bits);
    if (packed.length < bytes) packed = new Uint8Array(bytes);
  };
  /** Writes the piece to `packed`, from `at`, and returns where its bytes end. */
  const flush = (at: number): number => {
    const words = piece.subarray(0, filled);
    stream.apply(words);
    const packer = createPacker(filled, bits);
    packer.write(words);
    const bytes = packer.finish();
    packed.set(bytes, at);
    filled = 0;
    return at + bytes.length;
  };
  return {
    write(values) {
      if (written + values.length > parameters)
        throw new RangeError(
          `an update of ${written + values.length} values or more, where the plan says ${parameters}`,
        );
      reserve(values.length);
      let end = 0;
      for (let start = 0; start < values.length; ) {
        const part = values.subarray(start, start + piece.length - filled);
        clipped += encodeValues(part, piece.subarray(filled), weight, fixedPoint, random);
        filled += part.length;
        start += part.length;
        if (filled === piece.length) end = flush(end);
      }
      written += values.length;
      return packed.subarray(0, end);
    },
    finish() {
      if (written !== parameters)
        throw new RangeError(`an update of ${written} values, where the plan says ${parameters}`);
      const clippedFraction = clipped / parameters;
      reserve(2);
      let end = 0;
      for (const word of [weight, encodeFraction(clippedFraction, fixedPoint)]) {
        piece[filled++] = word;
        if (filled === piece.length) end = flush(end);
      }
      end = flush(end);
      return { packed: packed.subarray(0, end), clippedFraction };
    },
    end() {
      stream.end();
      piece.fill(0);
    },
  };
}
