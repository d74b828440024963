#!/bin/sh
# Makes every report in results/ again. usage: sh results/regenerate.sh [TRACES]
# TRACES holds switch128/ with experts.npy, prompt_len.npy, output_len.npy, domain.npy and
# meta.json; without it that study is left as it is. Needs build/moesim (sim/quickstart.sh).
set -eu
cd "$(dirname "$0")/.."
moesim=build/moesim

study() {
    echo "$1" >&2
    "$moesim" run "results/$1/scenario.yaml" >"results/$1/report.txt"
    "$moesim" run "results/$1/scenario.yaml" --format csv >"results/$1/report.csv" 2>/dev/null
}

page() {
    echo "studies/$1" >&2
    python3 "results/studies/$1.py" "$moesim"
}

study quickstart
page pools
page overlap
if [ $# -gt 0 ]; then
    trace=results/switch128/switch128.trace.db
    [ -e "$trace" ] || "$moesim" trace import --format numpy "$1/switch128" -o "$trace"
    study switch128
fi
