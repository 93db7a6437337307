/** How late this process's own timers are: what a heartbeat sent by such a timer would be late by. */

export interface Lateness {
  /** Ends the watch. Millis by which a timer was late: the worst, and how many were looked at. */
  stop(): { worstMs: number; ticks: number };
}

/** Starts to watch with a timer of `everyMs`; a blocked event loop shows as one late tick, however long it was. */
export function watchLateness(everyMs: number): Lateness {
  let due = performance.now() + everyMs;
  let worstMs = 0;
  let ticks = 0;
  const tick = () => {
    const now = performance.now();
    worstMs = Math.max(worstMs, now - due);
    ticks++;
    due = now + everyMs;
  };
  const timer = setInterval(tick, everyMs);
  return {
    stop() {
      clearInterval(timer);
      worstMs = Math.max(worstMs, performance.now() - due);
      return { worstMs, ticks };
    },
  };
}
