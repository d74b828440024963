#!/bin/sh
# Measures all GPUs of this node for one calibration, in ten minutes from start to end:
#   sh results/calibrations/measure.sh FOLDER [SECONDS]
# FOLDER takes a store for each part, what each printed, and whole.cal.db where build/moesim is
# there. MOECAL and MOESIM name other programs, SEED (1) draws what is held out. What each step may
# take, of SECONDS (580 without):
#   card      40 s, all GPUs         where each stands among others of its kind
#   measure   what is left           experts of large models; of small ones and what stands around
#                                    experts on GPUs of their own, from 4 GPUs on
#   links     15 s a GPU, 40 s at least and 120 s at most (four took 20 s)
#   merge     10 s
# A part that fails is named at the end, and the others are kept.
set -u
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo "usage: measure.sh FOLDER [SECONDS]" >&2
    exit 2
fi
out=$1
total=${2:-580}
seed=${SEED:-1}
moecal=${MOECAL:-build/moecal}
moesim=${MOESIM:-build/moesim}
begin=$(date +%s)
failed=

case $total in
*[!0-9]* | '') echo "measure.sh: '$total' is no number of seconds" >&2 && exit 2 ;;
esac
[ "$total" -ge 180 ] || { echo "measure.sh: $total seconds; 180 are the least" >&2 && exit 2; }

command -v "$moecal" >/dev/null || {
    echo "measure.sh: there is no program '$moecal'; build it, or name it by MOECAL" >&2
    exit 2
}
listed=$("$moecal" list) || exit 77
gpus=$(echo "$listed" | grep -c '^GPU [0-9]')
mkdir -p "$out" || exit 1

# step NAME ARGUMENTS...: runs moecal into NAME.cal.db and says what it took.
step() {
    name=$1
    shift
    from=$(date +%s)
    "$moecal" "$@" -o "$out/$name.cal.db" >"$out/$name.txt" 2>&1
    code=$?
    echo "$name: $(($(date +%s) - from)) s, exit code $code: moecal $*"
    return $code
}

# join PID NAME: waits for a step that runs beside others.
join() {
    wait "$1" || failed="$failed $2"
}

# numbers FIRST LAST: "2,3,4".
numbers() {
    seq -s, "$1" "$2"
}

links_s=$((gpus * 15))
[ "$links_s" -ge 40 ] || links_s=40
[ "$links_s" -le 120 ] || links_s=120

step card card || failed="$failed card"
left=$((total - ($(date +%s) - begin) - 10))
[ "$gpus" -gt 1 ] || links_s=20
main_s=$((left - links_s))

large=deepseek-v3,kimi-k2,qwen3-235b-a22b,llama-4-maverick,gpt-oss-120b,mixtral-8x7b
small=qwen3-30b-a3b,deepseek-v2-lite,switch-base-128,switch-base-256,fine64,group256,switch128
around=gemm,permute,combine,gate,kv_gqa,kv_mla,stream,launch
if [ "$gpus" -lt 4 ]; then
    step large measure --gpus "$(numbers 0 $((gpus - 1)))" --models "$large" --ep 8,16,32,64 \
        --dtype bf16,fp8 --kinds expert --no-collectives --seed "$seed" --limit "$main_s" ||
        failed="$failed large"
else
    step large measure --gpus "$(numbers 0 $((gpus - 3)))" --models "$large" --ep 8,16,32,64 \
        --dtype bf16,fp8 --kinds expert --no-collectives --seed "$seed" --limit "$main_s" &
    large_pid=$!
    step small measure --gpus $((gpus - 2)) --models "$small" --ep 8,16,64 --dtype bf16,fp8 \
        --kinds expert --no-collectives --seed "$seed" --limit "$main_s" &
    small_pid=$!
    step around measure --gpus $((gpus - 1)) --models "$large" --kinds "$around" \
        --no-collectives --seed "$seed" --limit "$main_s" &
    around_pid=$!
    join "$large_pid" large
    join "$small_pid" small
    join "$around_pid" around
fi
step links collectives --limit "$links_s" || failed="$failed links"

if [ -x "$moesim" ]; then
    from=$(date +%s)
    set --
    for part in card large small around links; do
        [ ! -s "$out/$part.cal.db" ] || set -- "$@" "$out/$part.cal.db"
    done
    rm -f "$out/whole.cal.db"
    { [ $# -gt 1 ] && "$moesim" cal merge "$@" -o "$out/whole.cal.db"; } || failed="$failed merge"
    echo "merge: $(($(date +%s) - from)) s; next: $moesim fit $out/whole.cal.db"
fi
echo "$gpus GPUs, $(($(date +%s) - begin)) s of $total in all"
[ -z "$failed" ] || { echo "failed:$failed; see their .txt in $out" >&2; exit 1; }
