#!/bin/sh
# moesim trace import of real files, which are too large or not free to ship: counts and content
# hashes. usage: script_import_real.sh MOESIM TESTS_FOLDER [--table]
# With --table it prints the rows of results/imports/README.md instead of "all as expected".
# Exit code 77 where ../shared/data is absent.
set -u
moesim=$1
data=$2/../../shared/data
[ -d "$data" ] || {
    echo "no $data: not tested"
    exit 77
}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
failed=0
table=${3:-}

# row FILE WHAT HASH: a line of the table.
row() {
    [ "$table" = --table ] && echo "| \`$1\` | $2 | $3 |"
}

# check EXPECTED ARGUMENT...: what the import prints, after the store's name.
check() {
    expected=$1
    shift
    got=$("$moesim" trace import "$@" --overwrite -o "$dir/t.db" 2>&1) || true
    got=${got#"$dir/t.db: "}
    # shellcheck disable=SC2254 # a pattern: what is drawn differs with the mathematics library
    case $got in
    $expected) ;;
    *)
        echo "FAILED: $*"
        echo "  expected: $expected"
        echo "  got:      $got"
        failed=$((failed + 1))
        return
        ;;
    esac
    "$moesim" trace verify "$dir/t.db" >"$dir/out" 2>&1 || {
        echo "FAILED: verify of $*: $(cat "$dir/out")"
        failed=$((failed + 1))
    }
    for path in "$@"; do :; done # the last argument
    row "${path#"$data/"}" "${got%, content *}" "\`${got##* }\`"
}

# model CONFIG TEXT: what `moesim models` says of it.
model() {
    "$moesim" models "$data/model_configs/$1_config.json" --format json >"$dir/out" 2>"$dir/err"
    grep -qF -e "$2" "$dir/out" "$dir/err" || {
        echo "FAILED: $1: no '$2' in: $(cat "$dir/out" "$dir/err")"
        failed=$((failed + 1))
    }
    row "$1" "$(sed -n 's/^ *"\(layers\|moe_layers\|count\|top_k\|total_weights\|kv_bytes_per_token\)": \(.*[0-9]\),*$/\1 \2,/p' \
        "$dir/out" | tr '\n' ' ' | sed 's/, $//; s/count/experts/')" ""
}

check 'sglang_json dump, 1 loads of 58 layers of 256 experts, content ce3e2038a2add61d' \
    --layers moe "$data/dsv3_expert_loads/decode_in1000out1000.json"
check 'sglang_json dump, 1 loads of 58 layers of 256 experts, content aa6687ede0b72aaa' \
    --layers moe "$data/dsv3_expert_loads/decode_in2000out100.json"
check 'sglang_json dump, 1 loads of 58 layers of 256 experts, content af0eecbfe1921d21' \
    --layers moe "$data/dsv3_expert_loads/prefill_in1000out1000.json"
check 'sglang_json dump, 1 loads of 58 layers of 256 experts, content 95b209cb74ad809b' \
    --layers moe "$data/dsv3_expert_loads/prefill_in1024.json"
check 'sglang_json dump, 1 loads of 58 layers of 256 experts, content 2fe8ae5b9eac847d' \
    --layers moe "$data/dsv3_expert_loads/prefill_in1800out100.json"
check 'sglang_json dump, 1 loads of 58 layers of 256 experts, content 4c955abdc225ec79' \
    --layers moe "$data/dsv3_expert_loads/prefill_in2048.json"
check 'sglang_json dump, 1 loads of 58 layers of 256 experts, content bdffc28a2b70b0d7' \
    --layers moe "$data/dsv3_expert_loads/prefill_in4096.json"
check 'sglang_json dump, 1 loads of 58 layers of 256 experts, content 4b6ea4dfe3811ab3' \
    --layers moe "$data/dsv3_expert_loads/prefill_in500out1500.json"
check 'count_csv dump, 80 loads of 12 layers of 60 experts, content 6c09ca5a33ce2860' \
    "$data/harmoeny_expert_freq/expert_freq_qwen_policy_datasets.csv"
check 'count_csv dump, 120 loads of 12 layers of 128 experts, content d8aa55437f14d0fc' \
    "$data/harmoeny_expert_freq/expert_freq_switch128_datasets.csv"
check 'count_csv dump, 90 loads of 12 layers of 60 experts, content d504b84c0afc7219' \
    "$data/harmoeny_expert_freq/synthetic_skew/expert_freq_qwen_policy_skew.csv"
check 'count_csv dump, 164 loads of 12 layers of 128 experts, content 750624924691de69' \
    "$data/harmoeny_expert_freq/synthetic_skew/expert_freq_switch128_skew.csv"
check 'count_csv dump, 2 loads of 48 layers of 128 experts, content a7e07f3f12c3c6ff' \
    "$data/qwen3_30b_activation_en_he/moe_all_layers_analysis_arc_en_he_500_20250921_090254_avg_activation.csv"
check 'count_csv dump, 2 loads of 48 layers of 128 experts, content 6b63b5dce797c711' \
    "$data/qwen3_30b_activation_en_he/moe_all_layers_analysis_copa_en_he_500_20250921_125427_avg_activation.csv"
check 'count_csv dump, 2 loads of 48 layers of 128 experts, content 982ece9a91ce9886' \
    "$data/qwen3_30b_activation_en_he/moe_all_layers_analysis_gsm_en_he_500_20250921_115824_avg_activation.csv"
check 'count_csv dump, 2 loads of 48 layers of 128 experts, content ba6a8ecff5f39d68' \
    "$data/qwen3_30b_activation_en_he/moe_all_layers_analysis_mmlu_en_he_500_20250921_123201_avg_activation.csv"
check 'count_csv dump, 2 loads of 48 layers of 128 experts, content ec2d3d86b56a8484' \
    "$data/qwen3_30b_activation_en_he/moe_all_layers_analysis_nli_en_he_460_20250925_154220_avg_activation.csv"
check 'count_csv dump, 2 loads of 48 layers of 128 experts, content 598407999d994594' \
    "$data/qwen3_30b_activation_en_he/moe_all_layers_analysis_ted_he_en_chunks_20250925_161115_avg_activation.csv"
check 'harmoeny_raw dump, 12 loads of 24 layers of 60 experts, content d3d6d8927b69807f' \
    "$data/harmoeny_raw_trace/qwen"
check 'harmoeny_raw dump, 16 loads of 12 layers of 128 experts, content 1a6662a888cfcf6b' \
    "$data/harmoeny_raw_trace/switch-exp128"
check 'harmoeny_raw dump, 16 loads of 12 layers of 16 experts, content 21babbf65bb65bb8' \
    "$data/harmoeny_raw_trace/switch-exp16"
check 'harmoeny_raw dump, 16 loads of 12 layers of 32 experts, content 8ea11c9d7a3ee23b' \
    "$data/harmoeny_raw_trace/switch-exp32"
check 'harmoeny_raw dump, 16 loads of 12 layers of 64 experts, content 5b8cb1d368479954' \
    "$data/harmoeny_raw_trace/switch-exp64"
check 'harmoeny_raw dump, 16 loads of 12 layers of 8 experts, content bf0e51ca5106e11a' \
    "$data/harmoeny_raw_trace/switch-exp8"
check 'flame dump, 32 requests, 2048 tokens, 8 layers of 64 experts, top-6, content 2c2907b818aff507' \
    --experts 64 "$data/flame_moe_290m_tokens"
check 'array dump, 1 requests, 2048 tokens, 8 layers of 64 experts, top-6, content 833c171f5661cb3b' \
    --experts 64 "$data/flame_moe_290m_tokens/flame_encoder_2048tok_8layers.npz"
check 'array dump, 1 requests, 640 tokens, 8 layers of 64 experts, top-6, content 94c2ad51da389b54' \
    --experts 64 "$data/flame_moe_290m_tokens/flame_decoder_10pos_8layers_64seq.npz"
check 'azure dump, arrivals of 8819 requests, content 0952a5dc9c9bffdb' \
    "$data/arrivals_azure2023/AzureLLMInferenceTrace_code.csv"
check 'azure dump, arrivals of 19366 requests, content fbada3d022d7e2bf' \
    "$data/arrivals_azure2023/AzureLLMInferenceTrace_conv.csv"
check 'mooncake dump, arrivals of 12031 requests, content 4d8ac1baa778a68d' \
    "$data/arrivals_mooncake_fast25/conversation_trace.jsonl"
check 'servegen dump, arrivals of 108502 requests, content *' \
    --seed 1 "$data/arrivals_servegen_r1"

model MiniMaxAI--MiniMax-M3 '"total_weights": 426175193088'
model Qwen--Qwen3-235B-A22B '"total_weights": 235092836352'
model Qwen--Qwen3-30B-A3B '"total_weights": 30531911680'
model Qwen--Qwen3.5-35B-A3B '"total_weights": 34659368960'
model Qwen--Qwen3.5-397B-A17B '"total_weights": 396343377920'
model deepseek-ai--DeepSeek-R1 '"total_weights": 671025397760'
model deepseek-ai--DeepSeek-V3.2 '"total_weights": 671876907008'
model deepseek-ai--DeepSeek-V3 '"total_weights": 671025397760'
model deepseek-ai--DeepSeek-V4-Flash '"total_weights": 284296478720'
model deepseek-ai--DeepSeek-V4-Pro '"total_weights": 1572909875200'
model meta-llama--Llama-4-Maverick-17B-128E-Instruct '"total_weights": 400711352320'
model meta-llama--Llama-4-Scout-17B-16E-Instruct '"total_weights": 107769364480'
model mistralai--Mixtral-8x22B-v0.1 '"total_weights": 140619939840'
model mistralai--Mixtral-8x7B-v0.1 '"total_weights": 46702526464'
model moonshotai--Kimi-K2-Instruct '"total_weights": 1026407202816'
model moonshotai--Kimi-K2.5 '"total_weights": 1026407202816'
model moonshotai--Kimi-K3 '"total_weights": 2779249639424'
model openai--gpt-oss-120b '"total_weights": 116788838400'
model openai--gpt-oss-20b '"total_weights": 20907786240'
model zai-org--GLM-5.2 '"total_weights": 743375831040'

[ $failed -eq 0 ] || exit 1
[ "$table" = --table ] || echo "all as expected"
