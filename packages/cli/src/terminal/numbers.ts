/** Numbers as people read them. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const;

/** Bytes with a binary unit and at most one decimal: `842 B`, `1.5 MiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** Whole numbers with a thin separator by thousands: `8,500`. */
export function formatCount(count: number): string {
  return Math.round(count)
    .toString()
    .replace(/\B(?=(\d{3})+(?!\d))/g, ',');
}

/** A span of time: `0.8 s`, `12 s`, `3 min 05 s`, `2 h 07 min`. */
export function formatSeconds(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (value: number) => String(value).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/** Four decimals, as everywhere a loss or an accuracy is shown; a dash when there is none. */
export function formatMetric(value: number | undefined): string {
  return value === undefined ? '–' : value.toFixed(4);
}

/** A moment on this machine's clock: `24 Nov 23:45`. */
export function formatMoment(unixMs: number): string {
  const date = new Date(unixMs);
  const month = date.toLocaleString('en-GB', { month: 'short' });
  const two = (value: number) => String(value).padStart(2, '0');
  return `${date.getDate()} ${month} ${two(date.getHours())}:${two(date.getMinutes())}`;
}
