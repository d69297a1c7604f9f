# pgtend with the PostgreSQL client tools it starts.
#
#   docker build -t pgtend .
#   buildah build -t pgtend .
#
# The bases are arguments: for a mirror, or an image that was imported by hand (tests/kubernetes/image). Here they have tags: where this was
# written Docker Hub could not be asked. `scripts/docker-bases renew` puts today's digests behind them; run it before a release, then test.
ARG BUILD_BASE=docker.io/library/rust:1.95-bookworm
ARG RUNTIME_BASE=docker.io/library/debian:bookworm-slim

FROM ${BUILD_BASE} AS build
# A binary in the build context that is taken as it is, such as target/release/pgtend, with its SBOM beside it (scripts/sbom
# target/release/pgtend.cdx.json) where there is one; empty: both are made. It must have been linked against a C library no newer than
# that of RUNTIME_BASE.
ARG PREBUILT=
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/cache/target,sharing=locked \
    set -eu; bin=/out/usr/local/bin doc=/out/usr/share/doc/pgtend; \
    mkdir -p "$bin" "$doc"; \
    if [ -n "$PREBUILT" ]; then \
        cp -- "$PREBUILT" "$bin/pgtend"; \
        [ ! -e "$PREBUILT.cdx.json" ] || cp -- "$PREBUILT.cdx.json" "$doc/pgtend.cdx.json"; \
    else \
        CARGO_TARGET_DIR=/cache/target cargo build --release --locked --bin pgtend; \
        cp /cache/target/release/pgtend "$bin/pgtend"; \
        CARGO_TARGET_DIR=/cache/target scripts/sbom "$doc/pgtend.cdx.json"; \
    fi; \
    chmod -R go=rX,u+w /out; chmod 0755 "$bin/pgtend"

FROM ${RUNTIME_BASE}
# pg_dump refuses servers newer than itself, so the newest major by default: it dumps all servers that pgtend supports. Debian has
# only its own (15 in bookworm): the others come from the PostgreSQL project's repository, pgdg. Where that is out of reach:
#   --build-arg CLIENTS_FROM=debian --build-arg POSTGRES_MAJOR=15      then for servers up to 15
ARG POSTGRES_MAJOR=18
ARG CLIENTS_FROM=pgdg
# pgdg's key comes out of Debian's own, signed postgresql-common: nothing is trusted on first use.
RUN set -eu; export DEBIAN_FRONTEND=noninteractive; cd /tmp; \
    apt-get update; \
    apt-get install -y --no-install-recommends ca-certificates; \
    case "$CLIENTS_FROM" in \
        debian) ;; \
        pgdg) \
            apt-get download postgresql-common; \
            dpkg-deb --fsys-tarfile postgresql-common_*.deb \
                | tar -xO ./usr/share/postgresql-common/pgdg/apt.postgresql.org.gpg >/usr/share/keyrings/pgdg.gpg; \
            test -s /usr/share/keyrings/pgdg.gpg; \
            . /etc/os-release; \
            echo "deb [signed-by=/usr/share/keyrings/pgdg.gpg] https://apt.postgresql.org/pub/repos/apt $VERSION_CODENAME-pgdg main" \
                >/etc/apt/sources.list.d/pgdg.list; \
            apt-get update ;; \
        *) echo "CLIENTS_FROM is pgdg or debian, not $CLIENTS_FROM" >&2; exit 1 ;; \
    esac; \
    apt-get install -y --no-install-recommends "postgresql-client-$POSTGRES_MAJOR"; \
    "/usr/lib/postgresql/$POSTGRES_MAJOR/bin/pg_dump" --version; \
    rm -rf -- /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log /tmp/*; \
    echo 'pgtend:x:65532:65532::/tmp:/usr/sbin/nologin' >>/etc/passwd; \
    echo 'pgtend:x:65532:' >>/etc/group; \
    mkdir -p /etc/pgtend/jobs /etc/pgtend/secrets

# The binary, and what is in it (/usr/share/doc/pgtend/pgtend.cdx.json). What else is in the image, Debian's own lists say.
COPY --from=build /out/ /

# Nothing is written but to stores and /tmp: the root file system may be read-only. A number, so that Kubernetes can see that it is
# not root (runAsNonRoot). No init: pgtend handles signals as process 1 and waits for every child it starts.
USER 65532:65532
ENV HOME=/tmp
WORKDIR /tmp
EXPOSE 9187
ENTRYPOINT ["pgtend"]
CMD ["--help"]
