import { createHash, X509Certificate } from 'node:crypto';
import { createAuthority, createCertificate, fingerprintOf } from '@tributary/shared-protocol';
import { describe, expect, test } from 'vitest';

describe('tls', () => {
  test('createCertificate: a P-256 key of its own, the names asked for, and dates that outlive the run', async () => {
    const made = await createCertificate(['coordinator.example', '192.0.2.7', '::1']);
    const certificate = new X509Certificate(made.cert);
    expect(certificate.publicKey.asymmetricKeyDetails).toMatchObject({ namedCurve: 'prime256v1' });
    expect(certificate.checkHost('coordinator.example')).toBe('coordinator.example');
    expect(certificate.checkIP('192.0.2.7')).toBe('192.0.2.7');
    expect(certificate.checkIP('::1')).toBe('::1');
    expect(certificate.ca).toBe(false);
    const day = 24 * 60 * 60 * 1000;
    expect(Date.parse(certificate.validFrom)).toBeLessThan(Date.now() - day);
    expect(Date.parse(certificate.validTo)).toBeGreaterThan(Date.now() + 19 * 365 * day);
    const other = await createCertificate(['coordinator.example']);
    expect(other.fingerprint).not.toBe(made.fingerprint);
  });

  test('fingerprintOf: is the SHA-256 of the DER bytes, from PEM or DER', async () => {
    const { cert, fingerprint } = await createCertificate(['localhost']);
    const der = Buffer.from(cert.replace(/-----[A-Z ]+-----|\s/g, ''), 'base64');
    expect(fingerprint).toBe(createHash('sha256').update(der).digest('hex'));
    expect(fingerprintOf(cert)).toBe(fingerprint);
    expect(fingerprintOf(der)).toBe(fingerprint);
  });

  test('createAuthority: what it issues is verified by its certificate, which stands in the chain', async () => {
    const authority = await createAuthority('servers');
    const issuer = new X509Certificate(authority.cert);
    expect(issuer.ca).toBe(true);
    expect(fingerprintOf(authority.cert)).toBe(authority.fingerprint);
    const made = await authority.issue(['a.example', '192.0.2.7']);
    const leaf = new X509Certificate(made.cert);
    expect(leaf.checkIssued(issuer) && leaf.verify(issuer.publicKey)).toBe(true);
    expect(leaf.checkHost('a.example')).toBe('a.example');
    expect(leaf.ca).toBe(false);
    // Servers dial each other too: server and client authentication.
    expect(leaf.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
    expect(made.cert.match(/BEGIN CERTIFICATE/g)).toHaveLength(2);
    expect(made.cert).toContain(authority.cert.trim());
    const other = await createAuthority('servers');
    expect(leaf.verify(new X509Certificate(other.cert).publicKey)).toBe(false);
  });

  test('createCertificate: refuses to name nobody', async () => {
    await expect(createCertificate([])).rejects.toThrow(RangeError);
  });
});
