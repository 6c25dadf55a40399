#!/usr/bin/env bash
# Installs what the tests need and runs all of them: `cargo test`, and without arguments also the browser client's
# (tests/client.sh). Needs cargo, and apt-get (as root or through sudo) for the packages that are missing on this
# machine. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."

# Redis over TLS has certificates made by openssl. promtool checks the metrics and the alerts. The browser tests drive
# Chromium through its driver, one of them with packages from npm; the client's, and some of the demo's, have proxies in
# between; the others start Redis servers of their own.
need=()
command -v redis-server >/dev/null || need+=(redis-server)
command -v openssl >/dev/null || need+=(openssl)
command -v curl >/dev/null || need+=(curl)
{ command -v ip || [ -x /usr/sbin/ip ]; } >/dev/null || need+=(iproute2)
{ command -v haproxy || [ -x /usr/sbin/haproxy ]; } >/dev/null || need+=(haproxy)
{ command -v nginx || [ -x /usr/sbin/nginx ]; } >/dev/null || need+=(nginx-light)
command -v promtool >/dev/null || need+=(prometheus)
command -v chromium >/dev/null || need+=(chromium)
command -v chromedriver >/dev/null || need+=(chromium-driver)
command -v firefox >/dev/null || need+=(firefox-esr)
command -v npm >/dev/null || need+=(npm)
if [ ${#need[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "tests/run.sh: please install ${need[*]} (no apt-get here)" >&2
        exit 1
    fi
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "tests/run.sh: please install ${need[*]} (not root, and no sudo here)" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    echo "tests/run.sh: installing ${need[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${need[@]}" >/dev/null
fi

# What the front end of RuoYi-Vue-Plus takes from npm, in the versions of the lock file.
(
    cd tests/front-end
    if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
        echo "tests/run.sh: installing the npm packages of tests/front-end"
        npm ci >/dev/null
    fi
)

# Thousands of connections at once: take as many open files as the machine gives.
ulimit -n "$(ulimit -Hn)"
if [ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -lt 10000 ]; then
    echo "tests/run.sh: the tests need 10000 open files, this machine gives $(ulimit -n) (ulimit -n)" >&2
    exit 1
fi

# The fault table holds what this run has seen, not an earlier one.
rm -rf "${CARGO_TARGET_DIR:-target}/faults"

# The programs that tests start come out of this build, not of one of their own (tests/src/cargo.rs).
export REALTIME_TESTS_WORKSPACE=1

status=0
cargo test --workspace --locked --no-fail-fast "$@" || status=$?
if [ $# -eq 0 ]; then
    tests/client.sh || status=$?
fi
exit "$status"
