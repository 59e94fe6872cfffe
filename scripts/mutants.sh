#!/usr/bin/env bash
# Runs cargo-mutants on the domain, on the files given as arguments or on all. A run that was interrupted
# continues: mutants that were caught before are skipped. Each mutant that was tested is appended to
# target/mutants-results.txt with its outcome.
set -euo pipefail
cd "$(dirname "$0")/.."
RESULTS=target/mutants-results.txt
OUTPUT=target/mutants
PATH=$PWD/target/tools/bin:$PATH
command -v cargo-mutants >/dev/null || {
    echo "cargo-mutants is missing: cargo install cargo-mutants --locked" >&2
    exit 1
}

# Appends the outcomes of this run, also if it is interrupted.
append_results() {
    local outcome
    [[ $OUTPUT/mutants.out/mutants.json -nt $OUTPUT/started ]] || return 0
    for outcome in caught missed timeout unviable; do
        [[ ! -s $OUTPUT/mutants.out/$outcome.txt ]] || sed "s/^/$outcome /" "$OUTPUT/mutants.out/$outcome.txt"
    done >>"$RESULTS"
}

mkdir -p "$OUTPUT"
touch "$OUTPUT/started"
trap append_results EXIT
files=()
for file in "$@"; do files+=(--file "$file"); done
nice -n 19 cargo mutants --package domain --iterate --jobs 1 --no-shuffle --output "$OUTPUT" "${files[@]}"
