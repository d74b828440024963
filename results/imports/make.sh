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

Of configurations the table gives weights (without multi-token prediction) and the bytes that a token
of context takes in bf16, index keys of sparse attention included. Published: 671 B (DeepSeek-V3,
V3.2), 284 B and 1.6 T (V4-Flash, V4-Pro), 744 B (GLM-5.2), 428 B with its encoders (MiniMax-M3); and
83.88, 6.72 and 9.62 GiB at 1,048,576 tokens (V3.2, V4-Flash, V4-Pro) with index keys in bf16, which
V3.2 and GLM-5.2 keep in fp8. How fast their attention is was not measured: reports say assumed.

| file | becomes | checksum |
|---|---|---|
END
    cat "$rows"
} >"$page"
echo "$page"
