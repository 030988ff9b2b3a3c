# Leveret's commands; the same ones at a desk and in CI. `make` alone lists them.

# RocksDB is compiled once per version and kept outside the clone (etc/setup.sh).
CACHE := $(or $(LEVERET_CACHE),$(HOME)/.cache/leveret)
ROCKSDB_VERSION := $(shell sed -n '/^name = "librocksdb-sys"/{n;s/.*"\(.*\)".*/\1/p;}' Cargo.lock)
export ROCKSDB_LIB_DIR := $(CACHE)/rocksdb-$(ROCKSDB_VERSION)
export ROCKSDB_STATIC := 1
export LEVERET_CACHE := $(CACHE)

TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO := cargo

.PHONY: help setup build run install deb test check fmt lint unit interop lapin-scenarios bench torture model fuzz clean

help: ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{printf "%-22s %s\n", $$1, $$2}'

setup:
	@etc/setup.sh $(ROCKSDB_LIB_DIR)

build: setup ## Build the programs: leveret, leveretctl and leveretperf
	$(CARGO) build --release --locked --bins

run: build ## Build and start the broker on 5672, with its data in ./data (ARGS=... for flags)
	$(TARGET)/release/leveret --data-dir ./data $(ARGS)

install: build ## Install the programs, links, unit, man pages and completions (PREFIX=/usr/local DESTDIR=)
	etc/install.sh $(TARGET)/release "$(DESTDIR)" "$(or $(PREFIX),/usr/local)"

deb: build ## Make a Debian package in target/ (etc/debian/try.sh tries it in a chroot)
	etc/deb.sh $(TARGET)/release $(TARGET)

test: unit interop ## Run every test: Rust's, then the interop clients

check: fmt lint test ## What CI runs: format, lint, every test

fmt: ## Check the format (cargo fmt mends it)
	$(CARGO) fmt --check

lint: setup ## Clippy, warnings are errors
	$(CARGO) clippy --release --locked --all-targets -- -D warnings

unit: setup ## Rust tests: unit, wire, features, management, model, restart, crash, conformance, tidy
	$(CARGO) test --release --locked

interop: build ## Other people's clients against the broker
	python3 interop/run.py --binary $(TARGET)/release/leveret
	python3 interop/management.py --binary $(TARGET)/release/leveret
	python3 interop/definitions.py --binary $(TARGET)/release/leveret
	python3 interop/openapi.py --binary $(TARGET)/release/leveret
	python3 interop/prometheus.py --binary $(TARGET)/release/leveret
	python3 interop/otel.py --binary $(TARGET)/release/leveret
	python3 interop/migrate.py --binary $(TARGET)/release/leveret
	python3 interop/ctl.py --binary $(TARGET)/release/leveret
	python3 interop/terminal.py --binary $(TARGET)/release/leveret

lapin-scenarios: setup
	$(CARGO) build --release --locked --example lapin-scenarios

bench: setup ## The store alone beside a raw file (ARGS=... for flags)
	$(CARGO) bench --locked --bench storage -- $(ARGS)

torture: setup ## Crashes, power cuts and broken disks for hours (SECONDS_EACH=3600 of each kind, CRASH_SEED=... repeats one)
	CRASH_SECONDS=$(or $(SECONDS_EACH),3600) $(CARGO) test --release --locked --test crash -- --nocapture

model: setup ## Random scripts against the specification for hours (CASES=100000, SEED=... repeats one)
	MODEL_CASES=$(or $(CASES),100000) $(CARGO) test --release --locked --test model -- --nocapture

fuzz: ## Fuzz the protocol for a while (needs nightly and cargo-fuzz; SECONDS_EACH=...)
	cargo +nightly fuzz run --fuzz-dir tests/fuzz decode -- -max_total_time=$(or $(SECONDS_EACH),300)

clean: ## Remove what was built, not the cache
	$(CARGO) clean

include benches/bench.mk
