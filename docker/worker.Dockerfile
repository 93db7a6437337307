# A site's worker on the CPU. From the root of the repository:
#   docker build -f docker/worker.Dockerfile -t tributary-worker:0.1.0 .
# Its first half is the coordinator's, so that it is built once.

FROM node:20.20.2-bookworm-slim AS build
WORKDIR /app
ENV CI=true
COPY package.json pnpm-lock.yaml pnpm-workspace.yaml tsconfig.base.json ./
COPY packages ./packages
RUN npx --yes pnpm@10.34.9 install --frozen-lockfile \
  && node_modules/.bin/tsc -b --noCheck packages/cli
# Again with what the program needs and nothing else. Peers of TensorFlow.js must be found from every package.
RUN rm -rf node_modules packages/*/node_modules \
  && npx --yes pnpm@10.34.9 --filter 'tributary...' install --frozen-lockfile --prod \
  --config.public-hoist-pattern='@tensorflow/*'

FROM node:20.20.2-bookworm-slim
WORKDIR /app
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/packages ./packages
# New volumes take their owner from this folder. Everything else stays root's, and is only read.
RUN ln -s /app/packages/cli/bin/tributary.js /usr/local/bin/tributary \
  && mkdir -p /state /data \
  && chown -R node:node /state
ENV NODE_ENV=production TRIBUTARY_HOME=/state
USER node
WORKDIR /state
# Heard of the coordinator within the last two minutes, or at rest by the site's own policy.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
  CMD test -n "$(find /tmp/pulse -mmin -2)"
ENTRYPOINT ["tributary"]
CMD ["join", "--data", "/data", "--pulse", "/tmp/pulse"]
