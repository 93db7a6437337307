/**
 * AssemblyScript: the heavy half of src/images/baseline-jpeg.ts. Huffman decoding (ITU-T T.81, annex F), the inverse
 * transform of Loeffler, Ligtenberg and Moschytz (1989) in the whole-number form that libjpeg calls "islow", its smooth
 * ("fancy") upsampling of the colour planes, and the colour conversion, all of which give libjpeg's values exactly: every
 * step is whole-number arithmetic, so the order in which it is done does not matter. Rows and columns that nobody asked
 * for are not converted.
 */

/** Codes of up to so many bits, with the bits that follow them as far as they fit, are found in one look. */
const LOOK: i32 = 10;
/** A table: `LOOK` bits of entries; then, by code length, the first code too large and what to add; then the symbols. */
const LIMITS: usize = 4 << LOOK;
const DELTAS: usize = LIMITS + 72;
const SYMBOLS: usize = DELTAS + 72;
/** The entry does not hold the value: bits 8 to 15 are the symbol, or it is not in the table of entries at all. */
const PARTIAL: u32 = 0x80;
const END_OF_BLOCK: u32 = 64;
const INVALID: u32 = 127;

/**
 * Builds a table from a DHT segment's 16 counts and its symbols. An entry: the value (16 bits, signed), how many zeros
 * precede it (8 bits), how many bits it all takes (8 bits). Returns false when there are more codes than there can be.
 */
export function buildTable(segment: usize, table: usize, isDc: bool): bool {
  memory.fill(table, 0x80, LIMITS);
  let code: u32 = 0;
  let index: u32 = 0;
  for (let length: u32 = 1; length <= 16; length++) {
    const count = <u32>load<u8>(segment + length - 1);
    store<i32>(table + DELTAS + length * 4, <i32>index - <i32>code);
    for (let i: u32 = 0; i < count; i++, code++, index++) {
      if (index > 255 || code >= <u32>1 << length) return false;
      const symbol = <u32>load<u8>(segment + 16 + index);
      store<u8>(table + SYMBOLS + index, <u8>symbol);
      if (<i32>length <= LOOK) fillEntries(table, code, length, symbol, isDc);
    }
    store<u32>(table + LIMITS + length * 4, code << (16 - length));
    code <<= 1;
  }
  return true;
}

function fillEntries(table: usize, code: u32, length: u32, symbol: u32, isDc: bool): void {
  const spare: u32 = LOOK - length;
  const size: u32 = isDc ? symbol : symbol & 15;
  const zeros = zerosOf(symbol, isDc);
  for (let rest: u32 = 0; rest < <u32>1 << spare; rest++) {
    let entry = PARTIAL | length | (symbol << 8);
    if (zeros >= END_OF_BLOCK || size === 0) entry = (zeros << 8) | length;
    else if (size <= spare) {
      entry = (<u32>extend(rest >> (spare - size), size) << 16) | (zeros << 8) | (length + size);
    }
    store<u32>(table + (((code << spare) | rest) << 2), entry);
  }
}

/** How far a symbol moves on before its value. */
@inline
function zerosOf(symbol: u32, isDc: bool): u32 {
  if (isDc) return symbol > 11 ? INVALID : 0;
  if (symbol === 0) return END_OF_BLOCK;
  const size = symbol & 15;
  return size > 10 || (size === 0 && symbol !== 0xf0) ? INVALID : symbol >> 4;
}

/** The signed value of `size` bits (T.81, figure F.12). */
@inline
function extend(bits: u32, size: u32): i32 {
  return <i32>bits - (bits >> (size - 1) === 0 ? <i32>((<u32>1 << size) - 1) : 0);
}

let scanStart: usize = 0;
let scanEnd: usize = 0;
let scanNext: usize = 0;
/** The bits to come, from the top, and how many of them are there. */
let bits: u64 = 0;
let available: i32 = 0;

/**
 * Copies entropy-coded bytes up to the next marker, without the zeros after 0xff, as 32-bit words in this machine's
 * order, and makes them the bytes that are decoded next. Returns how many were read, or -1 when there is no marker.
 * `target` is of the same length and 16 bytes more.
 */
export function unstuff(source: usize, length: i32, target: usize): i32 {
  const end = source + length;
  const ff = i8x16.splat(-1);
  let from = source;
  let to = target;
  while (from < end) {
    while (from + 16 <= end) {
      const chunk = v128.load(from);
      if (v128.any_true(i8x16.eq(chunk, ff))) break;
      v128.store(to, chunk);
      from += 16;
      to += 16;
    }
    const stop = min(from + 16, end - 1);
    if (from >= stop) break;
    while (from < stop) {
      const byte = load<u8>(from);
      if (byte === 0xff) {
        if (load<u8>(from + 1) !== 0) {
          toWords(target, to);
          begin(target, to);
          return <i32>(from - source);
        }
        from++;
      }
      store<u8>(to++, byte);
      from++;
    }
  }
  return -1;
}

function toWords(from: usize, to: usize): void {
  v128.store(to, i8x16.splat(0));
  const order = i8x16(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
  for (let at = from; at < to; at += 16) v128.store(at, i8x16.swizzle(v128.load(at), order));
}

function begin(start: usize, end: usize): void {
  scanStart = start;
  scanEnd = end;
  scanNext = start;
  bits = 0;
  available = 0;
}

/** A plane's samples, its tables and its sampling, in memory. */
@unmanaged
class Component {
  plane: usize;
  stride: usize;
  /** 64 of: byte offset of the coefficient (upper 16 bits), its quantiser (lower 16). In zigzag order. */
  quantisers: usize;
  dc: usize;
  ac: usize;
  /** Blocks of one MCU. */
  across: i32;
  down: i32;
  predicted: i32;
}

/**
 * Decodes MCUs [from, to) out of the bytes that were unstuffed last, of which they must be all. `block` is 256 bytes of
 * room. Returns false when the bytes are damaged.
 */
export function decodeSegment(components: usize, count: i32, from: i32, to: i32, perRow: i32, block: usize): bool {
  for (let c = 0; c < count; c++) changetype<Component>(components + c * offsetof<Component>()).predicted = 0;
  for (let mcu = from; mcu < to; mcu++) {
    const row = mcu / perRow;
    const column = mcu - row * perRow;
    for (let c = 0; c < count; c++) {
      const component = changetype<Component>(components + c * offsetof<Component>());
      const stride = component.stride;
      for (let v = 0; v < component.down; v++) {
        let target =
          component.plane +
          <usize>(row * component.down + v) * 8 * stride +
          <usize>(column * component.across) * 8;
        for (let h = 0; h < component.across; h++, target += 8) {
          const last = readBlock(component, block);
          if (last < 0) return false;
          if (last === 0) flat(block, target, stride);
          else inverse(block, target, stride);
        }
      }
    }
    if (scanNext > scanEnd + 8) return false;
  }
  const left = <i32>(scanEnd - scanStart) * 8 - (<i32>(scanNext - scanStart) * 8 - available);
  return left >= 0 && left < 8;
}

/** Reads and dequantises a block's coefficients, and returns the zigzag place of the last one, or -1. */
function readBlock(component: Component, block: usize): i32 {
  const zero = i8x16.splat(0);
  v128.store(block, zero);
  v128.store(block, zero, 16);
  v128.store(block, zero, 32);
  v128.store(block, zero, 48);
  v128.store(block, zero, 64);
  v128.store(block, zero, 80);
  v128.store(block, zero, 96);
  v128.store(block, zero, 112);
  const quantisers = component.quantisers;
  let acc = bits;
  let have = available;
  let next = scanNext;

  if (have <= 32) {
    acc |= <u64>load<u32>(next) << (32 - have);
    next += 4;
    have += 32;
  }
  let entry = load<u32>(component.dc + (<usize>(acc >> (64 - LOOK)) << 2));
  if ((entry & PARTIAL) !== 0) {
    entry = complete(component.dc, entry, acc, true);
    if (entry === 0) return -1;
  }
  if (((entry >> 8) & 127) !== 0) return -1;
  acc <<= entry & 63;
  have -= entry & 63;
  const predicted = component.predicted + (<i32>entry >> 16);
  component.predicted = predicted;
  store<i16>(block, <i16>(predicted * <i32>(load<u32>(quantisers) & 0xffff)));

  const ac = component.ac;
  let last = 0;
  let k = 1;
  while (k < 64) {
    if (have <= 32) {
      acc |= <u64>load<u32>(next) << (32 - have);
      next += 4;
      have += 32;
    }
    entry = load<u32>(ac + (<usize>(acc >> (64 - LOOK)) << 2));
    if ((entry & PARTIAL) !== 0) {
      entry = complete(ac, entry, acc, false);
      if (entry === 0) return -1;
    }
    acc <<= entry & 63;
    have -= entry & 63;
    const zeros = (entry >> 8) & 127;
    k += zeros;
    if (k > 63) {
      if (zeros !== END_OF_BLOCK) return -1;
      break;
    }
    const quantiser = load<u32>(quantisers + (k << 2));
    store<i16>(block + (quantiser >> 16), <i16>((<i32>entry >> 16) * <i32>(quantiser & 0xffff)));
    last = k;
    k++;
  }
  bits = acc;
  available = have;
  scanNext = next;
  return last;
}

/** The entry that the table had no room for, or 0 when no code is like these bits. */
function complete(table: usize, entry: u32, acc: u64, isDc: bool): u32 {
  let symbol = (entry >> 8) & 255;
  let length = entry & 63;
  if (entry === 0x80808080) {
    const code = <u32>(acc >> 48);
    length = LOOK + 1;
    while (length <= 16 && code >= load<u32>(table + LIMITS + length * 4)) length++;
    if (length > 16) return 0;
    const index = <i32>(code >> (16 - length)) + load<i32>(table + DELTAS + length * 4);
    symbol = load<u8>(table + SYMBOLS + index);
  }
  const zeros = zerosOf(symbol, isDc);
  const size: u32 = isDc ? symbol : symbol & 15;
  if (zeros >= END_OF_BLOCK || size === 0) return (zeros << 8) | length;
  const value = extend(<u32>((acc << length) >> (64 - size)), size);
  return (<u32>value << 16) | (zeros << 8) | (length + size);
}

/** A block of which only the mean is there. */
function flat(block: usize, target: usize, stride: usize): void {
  const level = (<i32>(<i16>(<i32>load<i16>(block) << 2)) + 16) >> 5;
  const row = i8x16.splat(<i8>max(0, min(255, level + 128)));
  for (let r = 0; r < 8; r++, target += stride) v128.store64_lane(target, row, 0);
}

/** The inverse transform: columns, then rows, each eight at a time. Uses 128 bytes behind the block. */
function inverse(block: usize, target: usize, stride: usize): void {
  pass(block, block + 128, 11);
  pass(block + 128, block, 18);
  for (let r = 0; r < 8; r += 2, target += stride << 1) {
    const centred = i8x16.narrow_i16x8_s(v128.load(block + (r << 4)), v128.load(block + (r << 4), 16));
    const rows = v128.xor(centred, i8x16.splat(-128));
    v128.store64_lane(target, rows, 0);
    v128.store64_lane(target + stride, rows, 1);
  }
}

/** One dimension of all eight vectors, over `source`'s rows; the result is transposed. */
@inline
function pass(source: usize, target: usize, shift: i32): void {
  const a = v128.load(source);
  const b = v128.load(source, 16);
  const c = v128.load(source, 32);
  const d = v128.load(source, 48);
  const e = v128.load(source, 64);
  const f = v128.load(source, 80);
  const g = v128.load(source, 96);
  const h = v128.load(source, 112);
  const half = i32x4.splat(1 << (shift - 1));

  const ae0 = lower(a, e);
  const cg0 = lower(c, g);
  const bd0 = lower(b, d);
  const fh0 = lower(f, h);
  const sum0 = i32x4.add(i32x4.dot_i16x8_s(ae0, pair(8192, 8192)), half);
  const dif0 = i32x4.add(i32x4.dot_i16x8_s(ae0, pair(8192, -8192)), half);
  const far0 = i32x4.dot_i16x8_s(cg0, pair(10703, 4433));
  const mid0 = i32x4.dot_i16x8_s(cg0, pair(4433, -10704));
  const even00 = i32x4.add(sum0, far0);
  const even03 = i32x4.sub(sum0, far0);
  const even01 = i32x4.add(dif0, mid0);
  const even02 = i32x4.sub(dif0, mid0);
  const odd00 = dots(bd0, fh0, pair(11363, 9633), pair(6437, 2260));
  const odd01 = dots(bd0, fh0, pair(9633, -2259), pair(-11362, -6436));
  const odd02 = dots(bd0, fh0, pair(6437, -11362), pair(2261, 9633));
  const odd03 = dots(bd0, fh0, pair(2260, -6436), pair(9633, -11363));

  const ae1 = upper(a, e);
  const cg1 = upper(c, g);
  const bd1 = upper(b, d);
  const fh1 = upper(f, h);
  const sum1 = i32x4.add(i32x4.dot_i16x8_s(ae1, pair(8192, 8192)), half);
  const dif1 = i32x4.add(i32x4.dot_i16x8_s(ae1, pair(8192, -8192)), half);
  const far1 = i32x4.dot_i16x8_s(cg1, pair(10703, 4433));
  const mid1 = i32x4.dot_i16x8_s(cg1, pair(4433, -10704));
  const even10 = i32x4.add(sum1, far1);
  const even13 = i32x4.sub(sum1, far1);
  const even11 = i32x4.add(dif1, mid1);
  const even12 = i32x4.sub(dif1, mid1);
  const odd10 = dots(bd1, fh1, pair(11363, 9633), pair(6437, 2260));
  const odd11 = dots(bd1, fh1, pair(9633, -2259), pair(-11362, -6436));
  const odd12 = dots(bd1, fh1, pair(6437, -11362), pair(2261, 9633));
  const odd13 = dots(bd1, fh1, pair(2260, -6436), pair(9633, -11363));

  const r0 = narrow(i32x4.add(even00, odd00), i32x4.add(even10, odd10), shift);
  const r7 = narrow(i32x4.sub(even00, odd00), i32x4.sub(even10, odd10), shift);
  const r1 = narrow(i32x4.add(even01, odd01), i32x4.add(even11, odd11), shift);
  const r6 = narrow(i32x4.sub(even01, odd01), i32x4.sub(even11, odd11), shift);
  const r2 = narrow(i32x4.add(even02, odd02), i32x4.add(even12, odd12), shift);
  const r5 = narrow(i32x4.sub(even02, odd02), i32x4.sub(even12, odd12), shift);
  const r3 = narrow(i32x4.add(even03, odd03), i32x4.add(even13, odd13), shift);
  const r4 = narrow(i32x4.sub(even03, odd03), i32x4.sub(even13, odd13), shift);

  const s0 = lower(r0, r4);
  const s1 = upper(r0, r4);
  const s2 = lower(r1, r5);
  const s3 = upper(r1, r5);
  const s4 = lower(r2, r6);
  const s5 = upper(r2, r6);
  const s6 = lower(r3, r7);
  const s7 = upper(r3, r7);
  const t0 = lower(s0, s4);
  const t1 = upper(s0, s4);
  const t2 = lower(s1, s5);
  const t3 = upper(s1, s5);
  const t4 = lower(s2, s6);
  const t5 = upper(s2, s6);
  const t6 = lower(s3, s7);
  const t7 = upper(s3, s7);
  v128.store(target, lower(t0, t4));
  v128.store(target, upper(t0, t4), 16);
  v128.store(target, lower(t1, t5), 32);
  v128.store(target, upper(t1, t5), 48);
  v128.store(target, lower(t2, t6), 64);
  v128.store(target, upper(t2, t6), 80);
  v128.store(target, lower(t3, t7), 96);
  v128.store(target, upper(t3, t7), 112);
}

@inline
function pair(first: i32, second: i32): v128 {
  return i32x4.splat((first & 0xffff) | (second << 16));
}

@inline
function dots(x: v128, y: v128, p: v128, q: v128): v128 {
  return i32x4.add(i32x4.dot_i16x8_s(x, p), i32x4.dot_i16x8_s(y, q));
}

@inline
function narrow(low: v128, high: v128, shift: i32): v128 {
  return i16x8.narrow_i32x4_s(i32x4.shr_s(low, shift), i32x4.shr_s(high, shift));
}

@inline
function lower(x: v128, y: v128): v128 {
  return v128.shuffle<i16>(x, y, 0, 8, 1, 9, 2, 10, 3, 11);
}

@inline
function upper(x: v128, y: v128): v128 {
  return v128.shuffle<i16>(x, y, 4, 12, 5, 13, 6, 14, 7, 15);
}

/**
 * Doubles a row of colour samples: each result is three parts of the nearer sample and one of the farther. `far` is the
 * row on the other side, or 0 when rows are not doubled. `sums` is room for count + 2 int16 and 32 bytes.
 */
function upsample(near: usize, far: usize, count: i32, sums: usize, target: usize): void {
  const first = sums + 2;
  if (far === 0) {
    for (let i = 0; i < count; i += 8) v128.store(first + (i << 1), v128.load8x8_u(near + i));
  } else {
    const three = i16x8.splat(3);
    for (let i = 0; i < count; i += 8) {
      const sum = i16x8.add(i16x8.mul(v128.load8x8_u(near + i), three), v128.load8x8_u(far + i));
      v128.store(first + (i << 1), sum);
    }
  }
  store<i16>(sums, load<i16>(first));
  store<i16>(first + (count << 1), load<i16>(first + ((count - 1) << 1)));
  const shift = far === 0 ? 2 : 4;
  const left = i16x8.splat(far === 0 ? 1 : 8);
  const right = i16x8.splat(far === 0 ? 2 : 7);
  const three = i16x8.splat(3);
  for (let i = 0; i < count; i += 8) {
    const at = first + (i << 1);
    const here = i16x8.mul(v128.load(at), three);
    const even = i16x8.shr_u(i16x8.add(i16x8.add(here, v128.load(at - 2)), left), shift);
    const odd = i16x8.shr_u(i16x8.add(i16x8.add(here, v128.load(at + 2)), right), shift);
    v128.store(target + (i << 1), v128.or(even, i16x8.shl(odd, 8)));
  }
}

/** A row of luma and two of colour to pixels of four bytes, the last of which is nothing. */
function toPixels(y: usize, cb: usize, cr: usize, width: i32, target: usize): void {
  const middle = i16x8.splat(128);
  const two = i16x8.splat(2);
  const round = i32x4.splat(32768);
  const zero = i8x16.splat(0);
  const redPart = pair(26345, 16384);
  const bluePart = pair(-14942, 16384);
  const greenPart = pair(-22554, 18734);
  for (let i = 0; i < width; i += 8, target += 32) {
    const luma = v128.load8x8_u(y + i);
    const blueness = i16x8.sub(v128.load8x8_u(cb + i), middle);
    const redness = i16x8.sub(v128.load8x8_u(cr + i), middle);
    // 1.402 = 1 + 26345 / 65536; -0.71414 = -1 + 18734 / 65536; 1.772 = 2 - 14942 / 65536.
    const moreRed = narrow(
      i32x4.dot_i16x8_s(lower(redness, two), redPart),
      i32x4.dot_i16x8_s(upper(redness, two), redPart),
      16,
    );
    const moreBlue = narrow(
      i32x4.dot_i16x8_s(lower(blueness, two), bluePart),
      i32x4.dot_i16x8_s(upper(blueness, two), bluePart),
      16,
    );
    const moreGreen = narrow(
      i32x4.add(i32x4.dot_i16x8_s(lower(blueness, redness), greenPart), round),
      i32x4.add(i32x4.dot_i16x8_s(upper(blueness, redness), greenPart), round),
      16,
    );
    const red = i16x8.add(i16x8.add(luma, redness), moreRed);
    const green = i16x8.add(i16x8.sub(luma, redness), moreGreen);
    const blue = i16x8.add(i16x8.add(luma, i16x8.add(blueness, blueness)), moreBlue);
    const redBlue = i8x16.narrow_i16x8_u(red, blue);
    const greenNothing = i8x16.narrow_i16x8_u(green, zero);
    // Byte by byte, then two by two: r g, b 0; r g b 0.
    const redGreen = v128.shuffle<u8>(redBlue, greenNothing, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const rest = v128.shuffle<u8>(redBlue, greenNothing, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    v128.store(target, lower(redGreen, rest));
    v128.store(target, upper(redGreen, rest), 16);
  }
}

/**
 * Writes the pixels of the given rows (indices) and columns (indices) to `target`, three bytes each and one byte of room
 * behind them. The colour planes have `colourWidth` × `colourHeight` samples that count. `room` is for a row's work.
 */
export function convert(
  components: usize,
  width: i32,
  colourWidth: i32,
  colourHeight: i32,
  rows: usize,
  rowCount: i32,
  columns: usize,
  columnCount: i32,
  room: usize,
  target: usize,
): void {
  const luma = changetype<Component>(components);
  const blueness = changetype<Component>(components + offsetof<Component>());
  const redness = changetype<Component>(components + 2 * offsetof<Component>());
  const sums = room;
  const pitch = luma.stride + 32;
  const blueRow = room + 2 * pitch;
  const redRow = blueRow + pitch;
  const pixels = redRow + pitch;
  const stride = blueness.stride;
  let done = -1;
  for (let i = 0; i < rowCount; i++) {
    const row = load<i32>(rows + (i << 2));
    if (row !== done) {
      let at = <usize>row * stride;
      let far: usize = 0;
      if (luma.down === 2) {
        const near = row >> 1;
        const other = max(0, min(colourHeight - 1, (row & 1) === 0 ? near - 1 : near + 1));
        at = <usize>near * stride;
        far = <usize>other * stride;
      }
      let cb = blueness.plane + at;
      let cr = redness.plane + at;
      if (luma.across === 2) {
        upsample(cb, luma.down === 2 ? blueness.plane + far : 0, colourWidth, sums, blueRow);
        upsample(cr, luma.down === 2 ? redness.plane + far : 0, colourWidth, sums, redRow);
        cb = blueRow;
        cr = redRow;
      }
      toPixels(luma.plane + <usize>row * luma.stride, cb, cr, width, pixels);
      done = row;
    }
    for (let c = 0; c < columnCount; c++, target += 3) {
      store<u32>(target, load<u32>(pixels + (<usize>load<i32>(columns + (c << 2)) << 2)));
    }
  }
}
