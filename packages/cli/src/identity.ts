/**
 * The coordinator's TLS identity, kept in the run directory: sites pin its fingerprint, so a run goes on with the same
 * certificate until that is rotated.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { createCertificate } from '@tributary/shared-protocol';

export interface TlsIdentity {
  /** PEM. */
  readonly key: string;
  readonly cert: string;
}

/** The run's certificate, made for `hosts` on the first call; the file is readable by its owner only. */
export async function tlsIdentity(runDir: string, hosts: readonly string[]): Promise<TlsIdentity> {
  const path = join(runDir, 'tls.pem.json');
  if (existsSync(path)) return JSON.parse(readFileSync(path, 'utf8')) as TlsIdentity;
  return await renewTlsIdentity(runDir, hosts);
}

/** A new certificate in the place of the run's present one; a coordinator that is running has to be told. */
export async function renewTlsIdentity(runDir: string, hosts: readonly string[]): Promise<TlsIdentity> {
  const path = join(runDir, 'tls.pem.json');
  const { key, cert } = await createCertificate(hosts);
  mkdirSync(runDir, { recursive: true });
  const draft = `${path}.tmp`;
  writeFileSync(draft, `${JSON.stringify({ key, cert })}\n`, { mode: 0o600 });
  chmodSync(draft, 0o600);
  renameSync(draft, path);
  return { key, cert };
}

/** What a certificate of a coordinator that listens on `host` is made out to. */
export function certificateHosts(host: string): string[] {
  return [...new Set([reachableHost(), 'localhost', '127.0.0.1', ...(host === '0.0.0.0' ? [] : [host])])];
}

/** The address that other machines most likely reach this one by: the first IPv4 one that is not internal. */
export function reachableHost(): string {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return addresses.find((address) => address.family === 'IPv4' && !address.internal)?.address ?? '127.0.0.1';
}
