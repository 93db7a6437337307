/**
 * Decoded images in shared memory, up to a bound. Nothing of the training set is ever replaced: a shuffled epoch visits
 * every file once, so whichever are kept, the same share of the next epoch is found, and replacing only costs copies.
 * Test images are visited once a round against once an epoch, so they give way to training images.
 */
import type { Place } from './job.ts';

export type Rank = 'train' | 'test';

/** What the cache has for one image in one job. */
export interface CacheUse {
  /** Read it here. */
  readonly cached?: Place;
  /** Write it here. */
  readonly keep?: Place;
  /** Call once when the job has settled, with whether this image was made. */
  end(made: boolean): void;
}

export interface PixelCache {
  use(file: string, rank: Rank): CacheUse;
  /** Bytes that are taken from the system, at most the bound. */
  readonly bytes: number;
}

interface Entry {
  readonly place: Place;
  filled: boolean;
  users: number;
}

/** Memory is taken in pieces of about this size. */
const SLAB_BYTES = 16 * 2 ** 20;

/** Returns an empty cache for images of `imageBytes` each; a bound below one image keeps none. */
export function createPixelCache(imageBytes: number, maxBytes: number): PixelCache {
  const entries = new Map<string, Entry>();
  /** Test images that were kept, the latest last. */
  const yielding: string[] = [];
  const free: Place[] = [];
  const capacity = Math.floor(maxBytes / imageBytes);
  let taken = 0;

  function room(rank: Rank): Place | undefined {
    if (free.length === 0 && taken < capacity) {
      const count = Math.min(capacity - taken, Math.max(1, Math.floor(SLAB_BYTES / imageBytes)));
      const slab = new SharedArrayBuffer(count * imageBytes);
      for (let i = count - 1; i >= 0; i--) free.push({ slab, offset: i * imageBytes });
      taken += count;
    }
    return free.pop() ?? (rank === 'train' ? evict() : undefined);
  }

  function evict(): Place | undefined {
    const at = yielding.findLastIndex((file) => {
      const entry = entries.get(file);
      return entry?.filled && entry.users === 0;
    });
    if (at < 0) return undefined;
    const [file] = yielding.splice(at, 1);
    const { place } = entries.get(file!)!;
    entries.delete(file!);
    return place;
  }

  return {
    use(file, rank) {
      const known = entries.get(file);
      if (known?.filled) {
        known.users++;
        return { cached: known.place, end: () => known.users-- };
      }
      // Someone else is filling it: this one is made without it.
      const place = known === undefined ? room(rank) : undefined;
      if (place === undefined) return { end: () => {} };
      const entry: Entry = { place, filled: false, users: 0 };
      entries.set(file, entry);
      return {
        keep: place,
        end(made) {
          if (made) {
            entry.filled = true;
            if (rank === 'test') yielding.push(file);
          } else {
            entries.delete(file);
            free.push(place);
          }
        },
      };
    },
    get bytes() {
      return taken * imageBytes;
    },
  };
}
