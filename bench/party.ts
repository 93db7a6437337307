/** The party's own side of a benchmark: its setup, what it tells the harness, and its memory. */

/** The setup, and messages to and from the harness. */
export function party<Setup>(): {
  setup: Setup;
  send: (type: string, value?: unknown) => void;
  on: (type: string, handler: (value: unknown) => void) => void;
} {
  process.on('disconnect', () => process.exit(0));
  return {
    setup: JSON.parse(process.argv[2] ?? '{}') as Setup,
    send: (type, value) => void process.send?.({ type, value }),
    on: (type, handler) =>
      void process.on('message', (message: { type: string; value: unknown }) => {
        if (message.type === type) handler(message.value);
      }),
  };
}

/** Peak resident memory of this process so far, in MiB. */
export function peakMemoryMiB(): number {
  return process.resourceUsage().maxRSS / 1024;
}
