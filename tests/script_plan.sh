#!/bin/sh
# `moesim plan` and `moesim policies` from outside: script_plan.sh MOESIM TESTS_FOLDER.
# Exit 0 when everything holds; says what does not.
set -u
moesim=$(realpath "$1") || exit 1
tests=$(realpath "$2") || exit 1
oracles=$tests/oracles
. "$tests/expect.sh"

readme() {
    "$moesim" plan --policy eplb --loads "$oracles/readme_loads.json" --slots 16 --gpus 8 \
        --nodes 2 "$@"
}

# The published example, with a dense layer in front, to a file and to standard output.
expect 0 "in-sample" readme --groups 4 --export sglang -o hier.json
cmp hier.json "$oracles/readme_plan_hier.json" || complain "hierarchical plan"
expect 0 "in-sample" readme --groups 1 -o global.json
cmp global.json "$oracles/readme_plan_global.json" || complain "global plan"
expect 0 "0.8164" readme --groups 4
cmp out.txt hier.json || complain "standard output is not the file"

# DeepSeek-V3's recorded loads (61 layers, 3 of them dense), where they are at hand.
loads=$tests/../../shared/data/dsv3_expert_loads
# real FILE GROUPS BEFORE AFTER
real() {
    [ -r "$loads/$1" ] || return 0
    expect 0 "58 MoE layers of 256 experts" "$moesim" plan --policy eplb --loads "$loads/$1" \
        --slots 288 --nodes 4 --gpus 32 --groups "$2"
    grep -q "before (contiguous)  *$3 *$" err.txt || complain "$1: $(cat err.txt)"
    grep -q "eplb  *$4 " err.txt || complain "$1: $(cat err.txt)"
}
real decode_in1000out1000.json 8 0.5228 0.7816
real decode_in1000out1000.json 1 0.5228 0.9930
real prefill_in4096.json 8 0.4439 0.7957
real prefill_in4096.json 1 0.4439 0.9939

# What is there is kept, unless asked otherwise.
expect 2 "exists already" readme --groups 1 -o hier.json
cmp hier.json "$oracles/readme_plan_hier.json" || complain "a refused run changed the file"
expect 0 "in-sample" readme --groups 1 -o hier.json --overwrite
cmp hier.json global.json || complain "--overwrite did not replace"
ln -s hier.json link.json
expect 2 "no regular file" readme --groups 1 -o link.json --overwrite

# Impossible requests leave nothing.
expect 2 "288 slots do not divide over 7 GPUs" "$moesim" plan --policy eplb \
    --loads "$oracles/readme_loads.json" --slots 288 --gpus 7 -o none.json
expect 2 "8 slots cannot hold 12 experts" "$moesim" plan --policy lpt \
    --loads "$oracles/readme_loads.json" --slots 8 --gpus 8 -o none.json
expect 2 "12 experts do not divide into 5 groups" readme --groups 5 -o none.json
expect 2 "no policy 'nonesuch'" readme --policy nonesuch -o none.json
expect 2 "exist only in a simulation" readme --policy hindsight -o none.json
expect 2 "no format 'vllm'" readme --export vllm -o none.json
expect 2 "--slots is needed" "$moesim" plan --policy eplb --loads x --gpus 8 -o none.json
expect 2 "GPU 12 has none of its own" "$moesim" plan --policy lpt \
    --loads "$oracles/readme_loads.json" --slots 24 --gpus 24 -o none.json
echo '{"logical_count": [[1, 2], [3, -4]]}' >negative.json
expect 2 "[1][1]" "$moesim" plan --policy eplb --loads negative.json --slots 2 --gpus 1 -o none.json
echo '{"logical_count": [[0, 0], [3, 1.01e30]]}' >huge.json
expect 2 "logical_count[1][1]" "$moesim" plan --policy eplb --loads huge.json --slots 2 --gpus 1
[ ! -e none.json ] || complain "a refused run left none.json"

# The world failing is exit 1.
expect 1 "absent.json" "$moesim" plan --policy eplb --loads absent.json --slots 2 --gpus 1
expect 1 "cannot be created" readme -o absent/plan.json
if [ -w /dev/full ]; then
    readme >/dev/full 2>err.txt
    [ $? -eq 1 ] || complain "a full standard output is exit 1"
fi

# Only zeros: every layer is dense, whatever the policy; a policy without copies is filled.
echo '{"logical_count": [[0, 0, 0]]}' >zeros.json
expect 0 "0 MoE layers" "$moesim" plan --policy random --loads zeros.json --slots 4 --gpus 2
[ "$(cat out.txt)" = '{"physical_to_logical_map": [[0, 1, 2, 0]]}' ] || complain "zeros"
echo '{"logical_count": [[5, 1, 1, 1]]}' >hot.json
expect 0 "2 slot(s) that lpt left empty" "$moesim" plan --policy lpt --loads hot.json \
    --slots 6 --gpus 2
[ "$(cat out.txt)" = '{"physical_to_logical_map": [[0, 0, 0, 1, 2, 3]]}' ] || complain "fill"

# Seeds: the same plan for the same one, another for another.
readme --policy random --seed 3 >a.txt 2>/dev/null || complain "random"
readme --policy random --seed 3 >b.txt 2>/dev/null
cmp a.txt b.txt || complain "one seed, two plans"
readme --policy random --seed 4 >b.txt 2>/dev/null
if cmp -s a.txt b.txt; then complain "two seeds, one plan"; fi

for name in contiguous round_robin random lpt eplb hindsight; do
    "$moesim" policies | grep -q "^$name " || complain "policies lacks $name"
    "$moesim" policies "$name" | grep -q "^  ties  " || complain "policies $name"
done
"$moesim" policies --format json | grep -qF '"schema": "moesim.policies/1"' || complain "json"
expect 2 "no policy 'nonesuch'" "$moesim" policies nonesuch
expect 2 "no format 'xml'" "$moesim" policies --format xml

[ -z "$(find . -name '*.part-*')" ] || complain "temporary files are left"
[ "$failures" -eq 0 ]
