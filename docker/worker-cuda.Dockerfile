# A site's worker on an NVIDIA GPU, through TensorFlow's own library. From the root of the repository:
#   docker build -f docker/worker-cuda.Dockerfile -t tributary-worker-cuda:0.1.0 .
#
# tfjs-node-gpu 4.22.0 brings libtensorflow 2.9.1, which was built for CUDA 11.2 and cuDNN 8.1 and opens
# libcudart.so.11.0, libcublas.so.11 and libcudnn.so.8 by these names: any CUDA 11 with cuDNN 8 has them, and 11.8 is the
# one whose images are still kept. It uses functions of Node that version 23 took away, so Node stays at 20.

FROM node:20.20.2-bookworm-slim AS build
WORKDIR /app
ENV CI=true
COPY package.json pnpm-lock.yaml pnpm-workspace.yaml tsconfig.base.json ./
COPY packages ./packages
RUN npx --yes pnpm@10.34.9 install --frozen-lockfile \
  && node_modules/.bin/tsc -b --noCheck packages/cli
# An optional peer, so it is not in the lock file: it is added here, by its exact version, beside all that is. Its install
# script downloads libtensorflow and the binding.
RUN rm -rf node_modules packages/*/node_modules \
  && npx --yes pnpm@10.34.9 --filter tributary add --lockfile-only --save-exact \
  --allow-build=@tensorflow/tfjs-node-gpu @tensorflow/tfjs-node-gpu@4.22.0 \
  && npx --yes pnpm@10.34.9 --filter 'tributary...' install --frozen-lockfile --prod \
  --config.public-hoist-pattern='@tensorflow/*'

FROM node:20.20.2-bookworm-slim AS node

FROM nvidia/cuda:11.8.0-cudnn8-runtime-ubuntu22.04
WORKDIR /app
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/packages ./packages
# New volumes take their owner from this folder. Everything else stays root's, and is only read.
RUN useradd --uid 1000 --user-group --no-create-home --shell /usr/sbin/nologin node \
  && ln -s /app/packages/cli/bin/tributary.js /usr/local/bin/tributary \
  && mkdir -p /state /data \
  && chown -R node:node /state
ENV NODE_ENV=production TRIBUTARY_HOME=/state
# What the driver gives into the container.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# Kernels that the driver compiles for a GPU newer than the library are kept where one may write.
ENV CUDA_CACHE_PATH=/state/cuda-cache
USER node
WORKDIR /state
# Heard of the coordinator within the last two minutes, or at rest by the site's own policy.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
  CMD test -n "$(find /tmp/pulse -mmin -2)"
ENTRYPOINT ["tributary"]
CMD ["join", "--data", "/data", "--pulse", "/tmp/pulse"]
