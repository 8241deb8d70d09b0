#!/bin/sh
# Starts the dev server with the examples, sends an event, follows the run until it ends, and stops the server.
set -eu
cd "$(dirname "$0")"
port=${PORT:-8288}
export STEPWELL_URL="http://127.0.0.1:$port"
work=$(mktemp -d)

stepwell dev . --port "$port" --db "$work/stepwell.db" &
server=$!
trap 'kill $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT

until curl -fs "$STEPWELL_URL/healthz" >/dev/null 2>&1 || stepwell functions >/dev/null 2>&1; do
  kill -0 $server 2>/dev/null || exit 1
done

event=$(stepwell send shop/order.placed --data '{"items": ["book", "lamp"], "total": 120}' \
  --user '{"email": "ada@example.com"}' --json | sed -n 's/.*"\([0-9a-f]\{32\}\)".*/\1/p')
run=$(stepwell events show "$event" --json | sed -n '/"runs"/,$ s/.*"id": "\([a-z0-9]\{26\}\)".*/\1/p' | head -n 1)
stepwell runs show "$run" --follow
