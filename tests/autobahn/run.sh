#!/usr/bin/env bash
# Runs Autobahn|Testsuite against the echo server (tests/src/bin/echo.rs) on both kinds of server, and prints a table.
# Fails when a case fails or a connection is not closed as it should be. docs/conformance.md has the results.
#
#   tests/autobahn/run.sh [CASES]      default: all but 12.* and 13.*, compression, which is not offered
#
# The suite is that of $PYTHON2, a CPython 2.7 with tests/autobahn/requirements.txt (default: python2.7), or else that of
# the image crossbario/autobahn-testsuite, with docker.
set -euo pipefail
cd "$(dirname "$0")/../.."

cases=${1:-'["*"]'}
python2=${PYTHON2:-python2.7}
profile=${PROFILE:-dev}
reports=${REPORTS:-target/autobahn}

cargo build --package realtime-tests --bin echo --profile "$profile" --locked
directory=debug
[ "$profile" = dev ] || directory=$profile

suite() {
    if "$python2" -c 'import autobahntestsuite' 2>/dev/null; then
        "$python2" -c 'from autobahntestsuite import wstest; wstest.run()' -m fuzzingclient -s "$1/spec.json"
    else
        docker run --rm --network host --volume "$1:$1" crossbario/autobahn-testsuite \
            wstest -m fuzzingclient -s "$1/spec.json"
    fi
}

server=
stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait 2>/dev/null || true
}
trap stop EXIT

port=${PORT:-9001}
failed=0
for kind in realtime actix; do
    out=$(mkdir -p "$reports/$kind" && cd "$reports/$kind" && pwd)
    target/$directory/echo "$kind" "$port" &
    server=$!
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        kill -0 "$server"
        sleep 0.1
    done
    cat >"$out/spec.json" <<JSON
{"outdir": "$out", "cases": $cases, "exclude-cases": ["12.*", "13.*"], "exclude-agent-cases": {},
 "servers": [{"agent": "$kind", "url": "ws://127.0.0.1:$port/resource/websocket", "options": {"version": 18}}]}
JSON
    suite "$out" >"$out/run.log" 2>&1
    stop
    python3 tests/autobahn/summary.py "$out/index.json" "$kind" || failed=1
done
exit "$failed"
