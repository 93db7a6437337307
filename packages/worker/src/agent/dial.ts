/**
 * Dialling a coordinator whose certificate is pinned. One that shows another certificate is not believed, unless it
 * proves, over that very certificate, that it holds the run's key: so a lead can change the certificate of a run, and
 * each site learns the new one by itself. Nothing of the site is said before that.
 */
import {
  challengeCoordinator,
  createChannel,
  errorCode,
  type Link,
  ProtocolError,
} from '@tributary/shared-protocol';
import type { Site } from './link.ts';

export interface Dialler extends Pick<Site, 'credential' | 'emit' | 'signal'> {
  readonly options: Pick<Site['options'], 'transport'>;
  readonly state: Pick<Site['state'], 'writeCredential'>;
  readonly guard: Pick<Site['guard'], 'checkCoordinator'>;
}

/**
 * A link to the site's coordinator, pinned as the credential says; the credential's pin is replaced, durably, by that of
 * a new certificate that the run's key vouches for.
 *
 * Rejects as `Transport.connect` does, and with FED_POLICY_COORDINATOR when the site's policy has no room for the new one.
 */
export async function dialCoordinator(site: Dialler): Promise<Link> {
  const { credential } = site;
  try {
    return await connect(site, credential.fingerprint);
  } catch (error) {
    const seen = error instanceof ProtocolError ? error.fingerprint : undefined;
    if (seen === undefined || !(await isVouchedFor(site, seen))) throw error;
    site.guard.checkCoordinator({ url: credential.url, fingerprint: seen });
    site.credential = { ...credential, fingerprint: seen };
    await site.state.writeCredential(site.credential);
    site.emit({
      type: 'log',
      message: `the coordinator has a new certificate, ${seen}; the run's key vouches for it, and it is pinned from now on`,
    });
    return await connect(site, seen);
  }
}

/** Whether who shows that certificate holds the run's key. Rejects when it can't be asked. */
async function isVouchedFor(site: Dialler, fingerprint: string): Promise<boolean> {
  const { publicKey, runId } = site.credential;
  if (publicKey === undefined) return false;
  const channel = createChannel(await connect(site, fingerprint));
  try {
    const { signal } = site;
    const coordinator = await challengeCoordinator(channel, { publicKey, fingerprint, signal });
    return coordinator.runId === runId;
  } catch (error) {
    if (errorCode(error) === 'FED_PROTOCOL_IDENTITY') return false;
    throw error;
  } finally {
    await channel.close('asked for its certificate only');
  }
}

function connect({ options, credential, signal }: Dialler, fingerprint: string | undefined): Promise<Link> {
  const pin = fingerprint === undefined ? {} : { fingerprint };
  return options.transport.connect(credential.url, { ...pin, signal });
}
