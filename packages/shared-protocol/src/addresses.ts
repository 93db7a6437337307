/**
 * Addresses of coordinators. One names a server, or over NATS the servers of one cluster with commas in between,
 * `tls://a:4222,b:4222/prefix`: whoever dials takes one that answers.
 */
import { z } from 'zod';

/** Servers that one address may name. */
const MAX_SERVERS = 16;
const LISTS = /^(nats|tls):\/\/([^/,]+(?:,[^/,]+)+)(\/.*)?$/;

/** The addresses of single servers that `address` stands for; itself where it names one. */
export function serverAddresses(address: string): string[] {
  const [, scheme, hosts, rest = ''] = LISTS.exec(address) ?? [];
  if (scheme === undefined || hosts === undefined) return [address];
  return hosts.split(',').map((host) => `${scheme}://${host}${rest}`);
}

/** A schema of addresses with one of these schemes; `error` says what was expected. */
export function addressSchema(protocol: RegExp, error: string): z.ZodType<string, string> {
  const single = z.url({ protocol });
  return z.string().refine((text) => {
    const servers = serverAddresses(text);
    return servers.length <= MAX_SERVERS && servers.every((one) => single.safeParse(one).success);
  }, error);
}
