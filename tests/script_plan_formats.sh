#!/bin/sh
# Plans in every engine's form: script_plan_formats.sh MOESIM TESTS_FOLDER. Exported plans are
# read by plan_reader.py, which knows nothing of our C, and read back by `moesim plan import`.
# Exit 0 when everything holds; says what does not.
set -u
moesim=$(realpath "$1") || exit 1
tests=$(realpath "$2") || exit 1
. "$tests/expect.sh"

# as_engine FORMAT FILE EXPERTS GPUS: the layers, as that engine would see them.
as_engine() {
    python3 "$tests/plan_reader.py" "$@" || complain "$1 would refuse $2"
}

# same LEFT RIGHT WHAT
same() {
    cmp -s "$1" "$2" || complain "$3: $(diff "$1" "$2" | head -n 4)"
}

# A plan with a dense layer in front and an online policy's empty slots, through all forms.
for form in moesim sglang trtllm vllm-ascend; do
    expect 0 "in-sample" "$moesim" plan --policy lpt --loads "$tests/oracles/readme_loads.json" \
        --slots 16 --gpus 4 --export "$form" -o "lpt.$form"
    as_engine "$form" "lpt.$form" 12 4 >"seen.$form"
done
grep -q null lpt.moesim || complain "lpt fills all slots, so nothing is tested here"
tail -n 2 seen.sglang >moe.sglang # the dense layer is layer 0
same moe.sglang seen.trtllm "SGLang and TensorRT-LLM"
sed 's/^0:/1:/; t; s/^1:/2:/' seen.vllm-ascend >numbered.vllm-ascend
same numbered.vllm-ascend seen.trtllm "vLLM-Ascend and TensorRT-LLM"
# The neutral form keeps the empty slots; filled on its way to an engine it is the same plan.
for form in sglang trtllm vllm-ascend; do
    expect 0 "repeat an expert" "$moesim" plan import lpt.moesim --export "$form" -o "filled.$form"
    same "filled.$form" "lpt.$form" "a plan that was filled later"
done

# Read back and written again: the same bytes, in each form.
for form in moesim sglang trtllm vllm-ascend; do
    expect 0 "lpt.$form: $form, " "$moesim" plan import "lpt.$form" --export "$form" -o "again.$form"
    same "again.$form" "lpt.$form" "round trip of $form"
done
# Between engines: what one form does not say has to be given.
expect 2 "give --gpus" "$moesim" plan import lpt.trtllm --export vllm-ascend
expect 0 "on 4 GPUs" "$moesim" plan import lpt.trtllm --gpus 4 --export vllm-ascend -o a.json
same a.json lpt.vllm-ascend "TensorRT-LLM to vLLM-Ascend"
expect 2 "give --first-layer" "$moesim" plan import lpt.vllm-ascend --export trtllm
expect 0 "" "$moesim" plan import lpt.vllm-ascend --first-layer 1 --export trtllm -o b.yaml
same b.yaml lpt.trtllm "vLLM-Ascend to TensorRT-LLM"
# SGLang's form lists dense layers and does not say which they are.
for form in moesim trtllm vllm-ascend; do
    expect 2 "does not say which are dense" "$moesim" plan import lpt.sglang --gpus 4 --export "$form"
    expect 0 "" "$moesim" plan import lpt.sglang --gpus 4 --first-layer 1 --export "$form" -o "c.$form"
    as_engine "$form" "c.$form" 12 4 >"kept.$form"
done
same c.trtllm lpt.trtllm "SGLang to TensorRT-LLM"
same c.vllm-ascend lpt.vllm-ascend "SGLang to vLLM-Ascend"
expect 2 "there are layers 0 to 2" "$moesim" plan import lpt.sglang --first-layer 3
expect 2 "is a plan for 4 GPUs" "$moesim" plan import lpt.vllm-ascend --gpus 8
expect 2 "do not divide" "$moesim" plan import lpt.trtllm --gpus 5
expect 2 "no format 'x'" "$moesim" plan import lpt.trtllm --export x
expect 2 "-o needs --export" "$moesim" plan import lpt.trtllm -o none.json
expect 2 "is no plan" "$moesim" plan import "$tests/oracles/readme_loads.json"
expect 1 "absent" "$moesim" plan import absent.json

# As the engines' own files, too.
for file in trtllm_moe_load_balancer.yaml:trtllm:64:8 vllm_ascend_expert_map.json:vllm-ascend:8:2 \
    sglang_init_expert_location_p2l.json:sglang:64:8; do
    IFS=: read -r name form experts gpus <<END
$file
END
    expect 0 "$form, " "$moesim" plan import "$tests/formats/$name" --export "$form" -o "own.$form"
    as_engine "$form" "$tests/formats/$name" "$experts" "$gpus" >theirs.txt
    as_engine "$form" "own.$form" "$experts" "$gpus" >ours.txt
    same ours.txt theirs.txt "$name"
done

# A plan in production is scored beside policies: on loads, and in a study.
expect 0 "" "$moesim" compare --loads "$tests/oracles/readme_loads.json" --layers moe --gpus 4 \
    --slots 16 --policies contiguous,lpt,./lpt.trtllm,./lpt.sglang:first_layer=1
[ "$(awk '$1 ~ /^(lpt|\.\/lpt)/ { print $2 }' out.txt | uniq | wc -l)" -eq 1 ] ||
    complain "a policy and its plan score differently: $(cat out.txt)"
study() {
    "$moesim" compare "$tests/../results/quickstart/group256-sample.trace.db" --model group256 \
        --gpus 8 --seeds 2 --set attribution=false --set serving.running_per_gpu=4 "$@"
}
expect 0 "" study --policies contiguous,eplb -o run.db
for form in moesim sglang trtllm vllm-ascend; do
    expect 0 "run.db: eplb, 8 layers of 256 experts" "$moesim" plan export --run run.db \
        --policy eplb --first-layer 0 --export "$form" -o "eplb.$form"
    as_engine "$form" "eplb.$form" 256 8 >"seen.$form"
    same "seen.$form" seen.moesim "a run's plan as $form"
done
expect 0 "" study --policies contiguous,eplb,./eplb.trtllm,./eplb.moesim --format csv
for policy in eplb ./eplb.trtllm ./eplb.moesim; do
    awk -F, -v p="$policy" '$1 == p { $1 = $2 = ""; print }' out.txt >"scores.$(basename "$policy")"
done
[ -s scores.eplb ] || complain "the report has no line of eplb"
same scores.eplb scores.eplb.trtllm "what a policy and its plan do in a study"
same scores.eplb scores.eplb.moesim "what a policy and its plan do in a study"
expect 2 "no policy 'nonesuch'" "$moesim" plan export --run run.db --policy nonesuch
expect 2 "no seed 9; there are seeds 1 to 2" "$moesim" plan export --run run.db --seed 9
expect 0 "" "$moesim" plan export --run run.db --policy eplb --seed 2 --first-layer 0 \
    --export moesim -o two.moesim
same two.moesim eplb.moesim "eplb's plan under another seed"
expect 2 "--run is needed" "$moesim" plan export
expect 1 "absent.db" "$moesim" plan export --run absent.db

[ -z "$(find . -name '*.part-*')" ] || complain "temporary files are left"
[ "$failures" -eq 0 ]
