#!/usr/bin/env bash
# Runs schemathesis (from PyPI, in target/): it generates valid and invalid requests from the OpenAPI
# document, and checks the responses against it. Not part of `make test`, because its cases are random, and
# because it is downloaded from a registry. CASES=500 runs that many cases of each operation.
set -euo pipefail
cd "$(dirname "$0")/../../.."
VERSION=4.32.5
TOOLS=target/schemathesis
[[ -x $TOOLS/bin/st ]] || {
    python3 -m venv $TOOLS && $TOOLS/bin/pip install --quiet "schemathesis==$VERSION"
}
cargo build --locked -p boxoffice

folder=$(mktemp -d)
server=
trap 'if [[ -n $server ]]; then kill "$server" && wait "$server" || true; fi; rm -rf "$folder"' EXIT
export BOXOFFICE_JWT_SECRET='a secret for tests only, 32 bytes and more'
target/debug/boxoffice serve --listen 127.0.0.1:0 --database "sqlite://$folder/boxoffice.db" \
    --book-limit 512/1us --cancel-limit 512/1us 2>"$folder/log" &
server=$!
address=
for _ in $(seq 600); do
    address=$(sed -n 's/.* ready address=\([0-9.:]*\).*/\1/p' "$folder/log")
    [[ -n $address ]] && break
    kill -0 "$server"
    sleep 0.1
done
token=$(target/debug/boxoffice token --sub boss --role admin)
auth="Authorization: Bearer $token"

# Resources for the requests: random ids name none.
post() { curl -sS "http://$address$1" -H "$auth" -H 'Content-Type: application/json' -d "$2"; }
first() { grep -oE "${1}_[0-9a-z]{26}" | head -n 1; }
event=$(post /v1/events '{"name":"x","venue":"x","startsAt":"2099-01-01T00:00:00Z","capacity":100000,
    "price":{"amount":1,"currency":"EUR"},"holdSeconds":2592000}' | first evt)
booking=$(post /v1/bookings "{\"eventId\":\"$event\",\"ticketQuantity\":1,\"userId\":\"boss\"}" | first bkg)
post "/v1/bookings/$booking/confirm" '{"paymentTransactionId":"x"}' >/dev/null
refund=$(post "/v1/bookings/$booking/confirm" '{"paymentTransactionId":"y"}' | first rfd)
# An id that cannot be parsed names no booking, so validation responds that it is not valid.
printf '[[operations]]\ninclude-path = "%s"\nchecks.negative_data_rejection.enabled = false\n' \
    '/v1/bookings/{id}/validate' | tee "$folder/random.toml" >"$folder/known.toml"
printf '[[operations]]\ninclude-path-regex = "%s"
parameters = { "path.id" = "%s", "query.eventId" = "%s" }\n' \
    '^/v1/events/' "$event" "$event" '^/v1/bookings' "$booking" "$event" '^/v1/refunds/' "$refund" "$event" \
    >>"$folder/known.toml"

# The document leaves some enums open for later versions; this version must use the listed values only. It
# does not state that `null` is equivalent to an absent member.
curl -sS "http://$address/openapi.json" | python3 -c '
import json, sys
document = json.loads(sys.stdin.read().replace("x-extensible-enum", "enum"))
for schema in document["components"]["schemas"].values():
    if schema.get("additionalProperties") is False:
        for name in schema["properties"].keys() - set(schema.get("required", [])):
            schema["properties"][name] = {"anyOf": [schema["properties"][name], {"type": "null"}]}
json.dump(document, sys.stdout)' >"$folder/openapi.json"

# Runs twice: with random ids, and with those that exist. The live stream does not end, so it is excluded. The
# check that every request which fits the schemas is accepted is excluded, too: no schema can express that an
# event starts in the future, or what is on sale.
for config in "$folder/random.toml" "$folder/known.toml"; do
    $TOOLS/bin/st --config-file "$config" run "$folder/openapi.json" --url "http://$address" \
        --header "$auth" \
        --exclude-path '/v1/events/{id}/availability/stream' --exclude-checks positive_data_acceptance \
        --max-examples "${CASES:-100}" --request-timeout 10 --continue-on-failure --no-color ||
        { tail -n 40 "$folder/log" >&2; exit 1; }
done
kill -0 "$server"
target/debug/boxoffice audit --database "sqlite://$folder/boxoffice.db"
