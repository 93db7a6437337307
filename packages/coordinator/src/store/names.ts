/** What a federation's things are called in JetStream, and which subjects its coordinator needs for them. */

export interface StoreNames {
  /** A key-value bucket: who leads, and the run's key, sealed. */
  readonly bucket: string;
  /** A stream: the log's lines, in order. */
  readonly stream: string;
  readonly subject: string;
  /** An object store: checkpoints. */
  readonly files: string;
}

/** `prefix` is the first token of the federation's subjects. */
export function storeNames(prefix: string): StoreNames {
  return {
    bucket: `tributary_${prefix}`,
    stream: `TRIBUTARY_LOG_${prefix}`,
    // Among the coordinator's own subjects: no site may publish there.
    subject: `${prefix}.store.log`,
    files: `tributary_${prefix}`,
  };
}

/** The subjects that a coordinator may publish to for its store, beside those under its prefix. */
export function storePermissions(prefix: string): string[] {
  const { bucket, stream, files } = storeNames(prefix);
  return [
    '$JS.API.INFO',
    ...[`KV_${bucket}`, stream, `OBJ_${files}`].flatMap((name) => [
      `$JS.API.STREAM.*.${name}`,
      `$JS.API.STREAM.MSG.*.${name}`,
      `$JS.API.DIRECT.GET.${name}`,
      `$JS.API.DIRECT.GET.${name}.>`,
      `$JS.API.CONSUMER.*.${name}`,
      `$JS.API.CONSUMER.*.${name}.>`,
      `$JS.API.CONSUMER.MSG.NEXT.${name}.>`,
    ]),
    `$KV.${bucket}.>`,
    `$O.${files}.>`,
    '$JS.FC.>',
  ];
}
