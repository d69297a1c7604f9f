# Thin: every target is a script or a cargo command that also runs without make.

.DEFAULT_GOAL := help
.PHONY: help demo layers test campaigns poisoned stores kills fuzz hosts systemd kubernetes deb bench lint deny setup

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## back up a sample database, prove it, restore it, compare (again at any time; demo/run stop removes it)
	scripts/postgres install --wheel-only
	cargo build
	demo/run

layers: ## the rooms of src/, bottom to top, and what each imports
	scripts/layers

test: ## everything that is tested, against real servers; AREA=backup: only that
	scripts/setup
	TMPDIR=$$(scripts/test-dir) cargo test $(AREA) -- --test-threads=6 --skip alone:: --skip random:: --skip campaigns::
	TMPDIR=$$(scripts/test-dir) cargo test --test it random::$(AREA) -- --test-threads=3
	TMPDIR=$$(scripts/test-dir) cargo test --test it alone::$(AREA) -- --test-threads=1

campaigns: ## the tests at random moments and beside writers four times as long as in `make test`, and others with more versions and rows (an hour)
	scripts/setup
	TMPDIR=$$(scripts/test-dir) PGTEND_TEST_CAMPAIGNS=1 cargo test --test it random:: -- --test-threads=2
	TMPDIR=$$(scripts/test-dir) cargo test --test it campaigns:: -- --test-threads=1

poisoned: ## the integration tests on databases whose owners are against us: settings, functions, operators (half an hour); AREA=backup
	scripts/setup
	scripts/poisoned $(AREA)

stores: ## the tests of what goes wrong with backups, on stores that encrypt and with each set in two stores (a quarter of an hour)
	scripts/setup
	scripts/stores

kills: ## 200 kills at random moments of backups, checks and restores, in a folder and in a bucket (half an hour)
	scripts/setup
	TMPDIR=$$(scripts/test-dir) PGTEND_TEST_KILLS=200 cargo test --test it random::backup_kills:: -- --test-threads=2 --nocapture

fuzz: ## fuzz what reads input of others, 60 s each; SECONDS=600, TARGET=dump: longer, only that
	scripts/setup
	scripts/fuzz $(or $(SECONDS),60) $(TARGET)

hosts: systemd kubernetes ## the places where it lives (root)

systemd: ## the units, in a Debian container that systemd boots (root)
	cargo build
	tests/systemd/run

kubernetes: ## manifests and chart against the Kubernetes schema, timers against systemd's calendar, the image (root)
	scripts/setup buildah debootstrap
	cargo build
	PGTEND=target/debug/pgtend tests/kubernetes/validate
	PGTEND=target/debug/pgtend tests/kubernetes/chart
	PGTEND=target/debug/pgtend tests/kubernetes/calendar
	PGTEND=target/debug/pgtend tests/kubernetes/image

deb: ## a Debian package of the release build: target/debian/
	cargo build --release
	rm -rf target/deb && mkdir -p target/deb/man
	scripts/sbom target/deb/pgtend.cdx.json
	target/release/pgtend man target/deb/man
	for shell in bash zsh fish; do target/release/pgtend completions $$shell >target/deb/pgtend.$$shell || exit 1; done
	cargo deb --version >/dev/null 2>&1 || cargo install --locked cargo-deb
	cargo deb --no-build

bench: ## pgtend beside what people use instead
	scripts/setup pigz
	test -e /usr/share/postgresql/15/extension/pg_partman.control || scripts/setup postgresql-15-partman
	cargo build --release --bin pgtend --example s3_server
	python3 benches/backup.py
	python3 benches/scale.py --sizes 0.1,1
	python3 benches/serve.py
	python3 benches/retention.py
	python3 benches/partition.py
	python3 benches/vector_index.py
	python3 benches/vector_index.py --growth
	python3 benches/vector_search.py
	python3 benches/vector_tables.py
	python3 benches/compress.py
	python3 benches/dictionary.py

lint: deny ## formatting, clippy, links of the docs, and what may come into the binary
	scripts/links
	cargo fmt --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	RUSTC_WRAPPER=$(CURDIR)/fuzz/rustc cargo check --locked --manifest-path fuzz/Cargo.toml --target-dir target --bins
	cargo clippy --all-targets -- -D warnings

deny: ## licences, banned and doubled crates, their sources; known faults where their database can be reached
	scripts/deny

setup: ## install what the tests need: PostgreSQL servers, gzip, zstd
	scripts/setup
