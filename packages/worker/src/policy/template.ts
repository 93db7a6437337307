/** What `tributary policy init` writes. A test reads it as it is and with every line set, so it can't fall behind. */

export const POLICY_TEMPLATE = `# This site's last word. It lies beside the images (or is named with --policy), is read when the site joins, and is
# enforced here, whatever the coordinator says. Every key is optional; take the # away from those that you want.

# Who may be dialled at all: addresses (* stands for a part of the host; without a port, any), certificates' SHA-256
# fingerprints, or both together. Nothing is sent to anyone else.
#coordinators:
#  - https://coordinator.example.org:7700
#  - { url: "https://*.example.org", fingerprint: "${'ab'.repeat(32)}" }

# SHA-256 of the model topologies that may be trained; \`tributary policy check\` shows a federation's.
#models:
#  - "${'cd'.repeat(32)}"

# The fewest updates, this site's among them, that its update may be averaged with. It is the coordinator's word: one
# that lies can claim any number.
#minCohort: 5

# Privacy settings that the federation must have, and the most that a run may spend of the privacy here, by this site's own
# books. Noise has to be in an update before it leaves; noise: coordinator allows the coordinator to add it.
# secureAggregation: true, updates leave under masks only; with peers, masked with these sites only.
#privacy:
#  differentialPrivacy: { minNoiseMultiplier: 1.0, maxClippingNorm: 10, noise: site }
#  budget: { epsilon: 8, delta: 0.00001 }
#  secureAggregation: { peers: { north: "${'k'.repeat(43)}" } }

# Rounds that this site trains in one run.
#maxRounds: 100

# When it may train, in local time; days are those on which a window begins. Outside, the site rests and comes back.
#hours:
#  - "20:00-06:00"
#  - { time: "00:00-24:00", days: [Sat, Sun] }

# Sent and received together, in one day of local time.
#maxBytesPerDay: 20 GiB

# Engines that may be used: tensorflow, webgpu, onnxruntime, wasm, cpu.
#engines: [webgpu, onnxruntime]

# Memory of the trainer process; beyond it, the trainer is stopped.
#maxMemory: 8 GiB

# Threads to train and to decode images with.
#threads: 4
`;
