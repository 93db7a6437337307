/** Addresses of coordinators that a policy allows: scheme and host in full, or with `*` for a part of the host. */
import { serverAddresses } from '@tributary/shared-protocol';

export interface AddressPattern {
  /** As the policy has it. */
  readonly text: string;
  readonly scheme: string;
  /** In lower case; `*` stands for letters, digits, dots and dashes, at least one. */
  readonly host: string;
  /** Undefined: any. */
  readonly port: string | undefined;
}

const DEFAULT_PORTS: Readonly<Record<string, string>> = { 'https:': '443', 'http:': '80' };

/** The pattern in `scheme://host[:port]`, or undefined. `*` may stand in the host and for the port. */
export function parseAddress(text: string): AddressPattern | undefined {
  const [, scheme, host, port] =
    /^([a-z][a-z0-9+.-]*):\/\/(\[[0-9a-f:.]+\]|[a-z0-9.*_-]+)(?::(\d{1,5}|\*))?\/?$/i.exec(text.trim()) ?? [];
  if (scheme === undefined || host === undefined) return undefined;
  return {
    text,
    scheme: `${scheme.toLowerCase()}:`,
    host: host.toLowerCase(),
    port: port === '*' ? undefined : port,
  };
}

/** Whether a coordinator's address fits, with every server that it names. A pattern without a port takes any. */
export function matchesAddress(pattern: AddressPattern, address: string): boolean {
  return serverAddresses(address).every((one) => matchesServer(pattern, one));
}

function matchesServer(pattern: AddressPattern, address: string): boolean {
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    return false;
  }
  if (url.protocol !== pattern.scheme || url.username !== '' || url.password !== '') return false;
  const port = url.port === '' ? DEFAULT_PORTS[url.protocol] : url.port;
  if (pattern.port !== undefined && pattern.port !== port) return false;
  const parts = pattern.host.split('*').map((part) => part.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'));
  return new RegExp(`^${parts.join('[a-z0-9._-]+')}$`).test(url.hostname.toLowerCase());
}
