# The coordinator. From the root of the repository:
#   docker build -f docker/coordinator.Dockerfile -t tributary-coordinator:0.1.0 .
# Bases are pinned by version; whoever wants them by digest as well adds @sha256:… after a first pull.

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
COPY docker/health.mjs ./docker/health.mjs
# New volumes take their owner from these folders. Everything else stays root's, and is only read.
RUN ln -s /app/packages/cli/bin/tributary.js /usr/local/bin/tributary \
  && mkdir -p /federation/runs /invites \
  && chown -R node:node /federation /invites
ENV NODE_ENV=production
USER node
WORKDIR /federation
EXPOSE 7700
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "/app/docker/health.mjs", "https://127.0.0.1:7700/health"]
ENTRYPOINT ["tributary"]
CMD ["coordinator"]
