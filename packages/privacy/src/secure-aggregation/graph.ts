/**
 * Who masks with whom, and who holds whose shares. In the complete graph (Bonawitz et al., 2017) everybody does with
 * everybody, and a site holds a share of its own secrets too. For large cohorts, a ring in which each site has the k
 * nearest as neighbours (a Harary graph; Bell et al., 2020, arXiv 2004.04986) is enough, when the order in the ring is
 * random and k is chosen so that honest survivors stay connected and no neighbourhood is corrupt.
 */
import { logBinomial } from '../accounting/log-space.ts';
import { PrivacyError } from '../errors.ts';

export interface Graph {
  /** With whom site `index` shares masks: ascending, without itself. */
  neighbours(index: number): readonly number[];
  /** Who holds shares of the secrets of site `index`: ascending; the first has the share of x = 1. */
  holders(index: number): readonly number[];
}

/** Everybody with everybody. */
export function completeGraph(sites: number): Graph {
  const all = Array.from({ length: sites }, (_, i) => i);
  return { neighbours: (index) => all.filter((i) => i !== index), holders: () => all };
}

/**
 * The ring in which site `order[p]` is a neighbour of those up to `degree` / 2 places before and after p. Neighbours hold
 * the shares. `order` holds each of 0 … n − 1 once; `degree` is even, from 2 to n − 1: else a RangeError.
 */
export function hararyGraph(order: readonly number[], degree: number): Graph {
  const sites = order.length;
  if (!Number.isInteger(degree) || degree < 2 || degree % 2 !== 0 || degree > sites - 1)
    throw new RangeError(`a ring of ${sites} sites has even degrees from 2 to ${sites - 1}, not ${degree}`);
  const places = new Map(order.map((index, place) => [index, place]));
  const neighbours = (index: number) => {
    const place = places.get(index);
    if (place === undefined) throw new RangeError(`there is no site ${index} in a ring of ${sites}`);
    const near: number[] = [];
    for (let step = 1; step <= degree / 2; step++)
      near.push(order[(place + step) % sites]!, order[(place - step + sites) % sites]!);
    return near.sort((a, b) => a - b);
  };
  return { neighbours, holders: neighbours };
}

export interface HararyRequirements {
  readonly sites: number;
  /** The largest part of the sites that work with the coordinator, in [0, 1). */
  readonly adversaryRate: number;
  /** The largest part of the sites that drop out, in [0, 1). */
  readonly dropRate: number;
  /** `semi-malicious`: the coordinator may lie after the keys have been told, too. */
  readonly coordinator: 'semi-honest' | 'semi-malicious';
}

/** The chance that the masks protect nobody's update is below 2^−40. */
const SECURITY_BITS = 40;
/** The chance that drop-outs within `dropRate` end the round is below 2^−20 a site. */
const CORRECTNESS_BITS = 20;
const MAX_SITES = 100_000;
/** Against a rate that is a hair below what was meant, as 0.29 · 100 is. */
const HAIR = 1e-14;

/**
 * Returns the smallest degree that is enough, with the smallest threshold (Bell et al., 2020, section 3). Half of the
 * chance of failure goes to each of: the honest survivors are not connected (two runs of degree / 2 neighbours each are
 * lost), and too many of one site's neighbours are adversaries (hypergeometric). Throws PrivacyError FED_PRIVACY_PARAMETER
 * for rates that no graph can bear, and where only the complete graph is enough.
 */
export function hararyParameters(requirements: HararyRequirements): { degree: number; threshold: number } {
  const { sites, adversaryRate, dropRate, coordinator } = requirements;
  if (!Number.isInteger(sites) || sites < 1 || sites > MAX_SITES)
    throw refused(`sites is ${sites}: an integer from 1 to ${MAX_SITES} is needed`);
  for (const [name, rate] of Object.entries({ adversaryRate, dropRate }))
    if (!(rate >= 0 && rate < 1)) throw refused(`${name} is ${rate}: it must be in [0, 1)`);
  const malicious = coordinator === 'semi-malicious';
  if (adversaryRate + (malicious ? 2 : 1) * dropRate > 0.9)
    throw refused(
      `adversaryRate ${adversaryRate} + ${malicious ? '2 · ' : ''}dropRate ${dropRate} is above 0.9: no graph bears that`,
    );
  const adversaries = Math.floor((adversaryRate + HAIR) * sites);
  const survivors = Math.ceil((1 - dropRate - HAIR) * sites);
  const lost = adversaries + Math.floor((dropRate + HAIR) * sites);
  for (let degree = 2; degree < sites - 1; degree += 2) {
    const logDisconnected =
      degree > lost
        ? Number.NEGATIVE_INFINITY
        : Math.log((sites * (sites - degree - 1)) / 2) +
          logBinomial(lost, degree) -
          logBinomial(sites, degree);
    if (logDisconnected >= -(SECURITY_BITS + 1) * Math.LN2) continue;
    const among = (marked: number) => hypergeometric(sites, marked, degree);
    const corrupt = smallestWithTailBelow(among(adversaries), 2 ** -(SECURITY_BITS + 1) / sites);
    const alive = smallestWithHeadAbove(among(survivors), 2 ** -CORRECTNESS_BITS / sites);
    // A coordinator that lies gets `corrupt` + degree shares in all, and needs twice the threshold.
    const tooFew = malicious ? Math.floor((corrupt + degree) / 2) : corrupt;
    if (alive > tooFew) return { degree, threshold: Math.max(tooFew + 1, 2) };
  }
  throw refused(`${sites} sites need the complete graph to bear these rates`);
}

/** The chances of 0 … draws marked ones among `draws` of `sites`, `marked` of which are. */
function hypergeometric(sites: number, marked: number, draws: number): Float64Array {
  const logChoose = (n: number, k: number) => (k < 0 || k > n ? Number.NEGATIVE_INFINITY : logBinomial(n, k));
  return Float64Array.from({ length: draws + 1 }, (_, hits) =>
    Math.exp(logChoose(marked, hits) + logChoose(sites - marked, draws - hits) - logChoose(sites, draws)),
  );
}

/** The smallest x with P[X > x] ≤ p. */
function smallestWithTailBelow(chances: Float64Array, p: number): number {
  let x = chances.length - 1;
  let tail = 0;
  while (x > 0 && tail + chances[x]! <= p) tail += chances[x--]!;
  return x;
}

/** The smallest x with P[X ≤ x] ≥ p. */
function smallestWithHeadAbove(chances: Float64Array, p: number): number {
  let x = 0;
  let head = chances[0]!;
  while (x < chances.length - 1 && head < p) head += chances[++x]!;
  return x;
}

function refused(message: string): PrivacyError {
  return new PrivacyError('FED_PRIVACY_PARAMETER', message);
}
