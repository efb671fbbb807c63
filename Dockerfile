# The image of Palisade: the release binary, Debian's C library and certificate authorities, nothing else, and no root.
# docs/operations.md says how to build it for several architectures, how to renew what it stands on, and what of it was tried where.

# What it is built in and what it stands on, each with its digest behind the tag (`…:nonroot@sha256:…`): a tag is somebody else's to move.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-bookworm
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST_IMAGE} AS build
ARG RUST_IMAGE
ARG BASE_IMAGE
ARG ALLOW_TAGS=
RUN case "$RUST_IMAGE $BASE_IMAGE" in *@sha256:*\ *@sha256:*) ;; *) \
      [ -n "$ALLOW_TAGS" ] || { echo "RUST_IMAGE and BASE_IMAGE need digests; --build-arg ALLOW_TAGS=1 is for a try" >&2; exit 1; } ;; \
    esac
WORKDIR /src
COPY . .
ARG SOURCE_DATE_EPOCH=0
# Where it was built is in no message: the same sources give the same bytes. And the crypto library is the one of Cargo.lock, compiled here:
# left to itself its build takes one that it finds on the system.
ENV AWS_LC_SYS_USE_SYSTEM=0 AWS_LC_SYS_CMAKE_BUILDER=0 \
    RUSTFLAGS="--remap-path-prefix=/usr/local/cargo/registry/src=crates --remap-path-prefix=/src=palisade" \
    CFLAGS="-ffile-prefix-map=/usr/local/cargo/registry/src=crates -ffile-prefix-map=/src=palisade"
RUN cargo build --locked --release --bin palisade
RUN mkdir /empty

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Palisade" \
      org.opencontainers.image.description="Envoy external authorization for AI agents: Cedar policies on every call" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# For state and log, where no volume is mounted: the only folder of the image that Palisade may write to.
COPY --from=build --chown=65532:65532 /empty /var/lib/palisade
COPY --from=build /src/target/release/palisade /usr/bin/palisade
# By number: Kubernetes' `runAsNonRoot` does not look names up.
USER 65532:65532
EXPOSE 9191 9192 9194
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["/usr/bin/palisade", "health", "--config", "/etc/palisade/palisade.toml"]
ENTRYPOINT ["/usr/bin/palisade"]
CMD ["serve", "--config", "/etc/palisade/palisade.toml"]
