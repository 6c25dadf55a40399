#!/usr/bin/env bash
# The tests of the browser client, apps/web-client: types, its behaviour against the demo, its size, and pages in
# Chromium and Firefox. tests/run.sh has installed what they need.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -n "${REALTIME_TESTS_WORKSPACE:-}" ]; then
    cargo build --workspace --tests --bin realtime-demo --locked
else
    cargo build --package realtime-demo --locked
fi
cd apps/web-client
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
    echo "tests/client.sh: installing the npm packages of apps/web-client"
    npm ci >/dev/null
fi
# Debian 12 has 18.
if ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 11) ? 0 : 1)'; then
    echo "tests/client.sh: Node 20.11 or later is needed, and this is $(node --version)" >&2
    exit 1
fi
npm run check
npm run test:browser
