/**
 * The coordinator's own certificate. No authority vouches for it: the invite carries its fingerprint, and a worker
 * talks to nobody else. So names and dates in it matter little; the key is what is checked.
 */
import { createHash, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import type { generate as generateWith } from 'selfsigned';

export interface Certificate {
  /** PEM, PKCS #8; keep it readable by its owner only. */
  readonly key: string;
  /** PEM. */
  readonly cert: string;
  /** SHA-256 of the certificate's DER bytes, lower-case hex: what invites pin. */
  readonly fingerprint: string;
}

/** What vouches for the certificates of several machines that belong together. */
export interface Authority {
  /** PEM. */
  readonly cert: string;
  /** SHA-256 of the certificate's DER bytes, lower-case hex. */
  readonly fingerprint: string;
  /** A new certificate for the host names and addresses in `hosts`, to listen and to dial with; `cert` is its chain. */
  issue(hosts: readonly string[]): Promise<Certificate>;
}

type CertificateExtension = NonNullable<
  NonNullable<Parameters<typeof generateWith>[1]>['extensions']
>[number];

const VALID_YEARS = 20;
/** So that a site whose clock is behind does not see a certificate from the future. */
const BACKDATED_DAYS = 2;

/**
 * Returns a new self-signed certificate with an EC P-256 key, valid for 20 years, for the host names and IP addresses
 * in `hosts` (at least one; the first is its common name).
 */
export async function createCertificate(hosts: readonly string[]): Promise<Certificate> {
  const first = firstOf(hosts);
  return await generate(first, [
    { name: 'basicConstraints', cA: false, critical: true },
    { name: 'keyUsage', digitalSignature: true, critical: true },
    { name: 'extKeyUsage', serverAuth: true },
    alternativeNames(hosts),
  ]);
}

/** Returns a new authority. Its key is in no file and goes with the object: nothing can be issued in its name later. */
export async function createAuthority(name: string): Promise<Authority> {
  const own = await generate(name, [
    { name: 'basicConstraints', cA: true, critical: true },
    { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
  ]);
  return {
    cert: own.cert,
    fingerprint: own.fingerprint,
    async issue(hosts) {
      const made = await generate(
        firstOf(hosts),
        [
          { name: 'basicConstraints', cA: false, critical: true },
          { name: 'keyUsage', digitalSignature: true, critical: true },
          { name: 'extKeyUsage', serverAuth: true, clientAuth: true },
          alternativeNames(hosts),
        ],
        own,
      );
      return { ...made, cert: `${made.cert.trim()}\n${own.cert.trim()}\n` };
    },
  };
}

/** The SHA-256 of a certificate in PEM or DER, in lower-case hex. Of a PEM chain, the first certificate counts. */
export function fingerprintOf(certificate: string | Uint8Array): string {
  return createHash('sha256').update(new X509Certificate(certificate).raw).digest('hex');
}

async function generate(
  commonName: string,
  extensions: CertificateExtension[],
  ca?: { readonly key: string; readonly cert: string },
): Promise<Certificate> {
  const notBeforeDate = new Date();
  notBeforeDate.setUTCDate(notBeforeDate.getUTCDate() - BACKDATED_DAYS);
  const notAfterDate = new Date();
  notAfterDate.setUTCFullYear(notAfterDate.getUTCFullYear() + VALID_YEARS);
  // Loaded only here: it is needed once in a run's life, and is larger than all else that this package imports.
  const selfsigned = await import('selfsigned');
  const { private: key, cert } = await selfsigned.generate([{ name: 'commonName', value: commonName }], {
    keyType: 'ec',
    curve: 'P-256',
    algorithm: 'sha256',
    notBeforeDate,
    notAfterDate,
    extensions,
    ...(ca === undefined ? {} : { ca }),
  });
  return { key, cert, fingerprint: fingerprintOf(cert) };
}

function firstOf(hosts: readonly string[]): string {
  const [first] = hosts;
  if (first !== undefined) return first;
  throw new RangeError('hosts: a certificate needs at least one host name or address');
}

function alternativeNames(hosts: readonly string[]): CertificateExtension {
  return {
    name: 'subjectAltName',
    altNames: hosts.map((host) =>
      isIP(host) === 0 ? { type: 2 as const, value: host } : { type: 7 as const, ip: host },
    ),
  };
}
