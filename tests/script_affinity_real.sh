#!/bin/sh
# The affinity policy on whole recorded traces, zero copies, against linear placement and EPLB.
# usage: script_affinity_real.sh MOESIM TESTS_FOLDER
# Exit code 77 where ../shared/traces or xz is absent.
set -u
moesim=$1
traces=$2/../../shared/traces
[ -d "$traces" ] && command -v xz >/dev/null || {
    echo "no $traces, or no xz: not tested"
    exit 77
}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
for name in fine64 group256; do
    mkdir "$dir/$name" && cp "$traces/$name"/* "$dir/$name" && chmod u+w "$dir/$name"/* &&
        xz -d "$dir/$name"/*.xz &&
        "$moesim" trace import --format numpy "$dir/$name" -o "$dir/$name.db" || exit 1
done
MOESIM_TRACES="$dir/fine64.db $dir/group256.db" \
    "$(dirname "$moesim")/tests/test_affinity" --filter 'affinity/whole_recorded_traces' --verbose
