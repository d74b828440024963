#!/bin/sh
# Makes results/imports/README.md again, from real files that are too large or not free to ship.
# usage: sh results/imports/make.sh. Leaves the page as it is where ../shared/data is absent.
set -eu
cd "$(dirname "$0")/../.."
page=results/imports/README.md
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
code=0
sh tests/script_import_real.sh build/moesim tests --table >"$rows" || code=$?
if [ $code -eq 77 ]; then
    cat "$rows"
    exit 0
fi
[ $code -eq 0 ] || {
    cat "$rows"
    exit 1
}
{
    cat <<'END'
# Real files that are imported

Made by `sh results/imports/make.sh` (`tests/script_import_real.sh` holds every line, counts and
checksums, against what it expects, and verifies each store). The files themselves are not ours to
ship: eight expert-load files of DeepSeek-V3 (SGLang), HarMoEny's frequencies and raw traces,
Qwen3-30B's frequencies, CMU FLAME's token routes (torch files), arrivals of Azure, Mooncake and
ServeGen, and HuggingFace configurations. The checksum is the store's content hash: equal content,
equal hash, on any machine; ServeGen's arrivals are drawn, and differ in their last digits with the
mathematics library.

A configuration is refused where its attention reads a chosen or compressed part of the context
(DeepSeek sparse attention and alike): what a step costs would be guessed. A card of ours (.yaml)
may state such a model's sizes; its attention is then priced as if it read everything.

| file | becomes | checksum |
|---|---|---|
END
    cat "$rows"
} >"$page"
echo "$page"
