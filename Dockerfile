# pgtend with the PostgreSQL client tools it starts.
#
#   docker build -t pgtend .
#   buildah build --target runtime -t pgtend .
#
# And with PostgreSQL servers and pgvector, for verify = "restore" in a server of its own:
#
#   docker build --target verify -t pgtend-verify .
#   docker build --target verify --build-arg SERVER_MAJORS="16 18" --build-arg LOCALES="de_DE.UTF-8" -t pgtend-verify .
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

FROM ${RUNTIME_BASE} AS runtime
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

# The servers of a backup's proof: one major for each of the databases, as a dump is restored in its own. Where only Debian is in reach
# (CLIENTS_FROM=debian), SERVER_MAJORS=15, and pgvector where Debian has it.
FROM runtime AS verify
ARG CLIENTS_FROM=pgdg
ARG SERVER_MAJORS="14 15 16 17 18"
# The libc locales of the databases, beside C and C.UTF-8: a copy has the locale of its original.
ARG LOCALES="en_US.UTF-8"
USER 0
RUN set -eu; export DEBIAN_FRONTEND=noninteractive; \
    mkdir -p /etc/postgresql-common; \
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf; \
    apt-get update; \
    packages=locales; \
    for major in $SERVER_MAJORS; do \
        packages="$packages postgresql-$major"; \
        if [ "$CLIENTS_FROM" = pgdg ] || apt-cache show "postgresql-$major-pgvector" >/dev/null 2>&1; then \
            packages="$packages postgresql-$major-pgvector"; \
        fi; \
    done; \
    apt-get install -y --no-install-recommends $packages; \
    for major in $SERVER_MAJORS; do "/usr/lib/postgresql/$major/bin/postgres" --version; done; \
    for locale in $LOCALES; do localedef -c -i "${locale%%.*}" -f "${locale#*.}" "$locale"; done; \
    rm -rf -- /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log /tmp/*
USER 65532:65532

# Without --target: the smaller one.
FROM runtime
