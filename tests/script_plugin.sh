#!/bin/sh
# Plug-ins from outside: script_plugin.sh MOESIM TESTS_FOLDER PLUGIN_FOLDER, the last with what
# tests/meson.build compiles. Exit 0 when everything holds; says what does not.
set -u
moesim=$(realpath "$1") || exit 1
tests=$(realpath "$2") || exit 1
plugins=$(realpath "$3") || exit 1
. "$tests/expect.sh"
loads=$tests/oracles/readme_loads.json
cp "$plugins"/plugin_*.so . || exit 1

plan() {
    "$moesim" plan --loads "$loads" --slots 16 --gpus 8 --nodes 2 --policy "$@"
}

# The template: listed, checked, planned with, its parameter read.
expect 0 "" "$moesim" policies ./plugin_template.so
grep -q "^  :copies=65534" out.txt || complain "parameters of the template"
expect 0 "" "$moesim" policy check ./plugin_template.so --cases 200
grep -q "^kept    place covers" out.txt || complain "rules of the template"
grep -q BROKEN out.txt && complain "the template breaks a rule"
expect 0 "in-sample, 4.0 redundant copies per layer" plan ./plugin_template.so
expect 0 "in-sample, 4.0 redundant copies per layer" plan ./plugin_template.so:copies=4
grep -q "^  ./plugin_template.so:copies=4 " err.txt || complain "the label lacks its parameter"
expect 0 "in-sample, 0.0 redundant copies per layer" plan ./plugin_template.so:copies=0
expect 2 "snake: parameter copies: '1.5'; allowed: whole, 0 to 65534" plan ./plugin_template.so:copies=1.5
expect 2 "snake: parameter copies is set twice" plan ./plugin_template.so:copies=1:copies=2
expect 2 "snake has no parameter 'R'; it has: copies" plan ./plugin_template.so:R=1
expect 2 "policy snake makes no dispatch decision" plan eplb+dispatch=./plugin_template.so

# A built-in policy's own file, built outside: the same plan.
expect 0 "" plan ./plugin_eplb.so -o theirs.json
expect 0 "" plan eplb -o ours.json
cmp theirs.json ours.json || complain "eplb as a plug-in plans otherwise"

# Refused, with both versions named.
expect 2 "compiled for policy ABI 4, this moesim has ABI 3" plan ./plugin_newer.so
expect 2 "compiled for policy ABI 1, this moesim has ABI 3" plan ./plugin_older.so
expect 2 "its policy table has 8 bytes, this moesim's has" plan ./plugin_smaller.so
expect 2 "shows no moe_policy_plugin" plan ./plugin_closed.so
expect 1 "cannot load plug-in: ./nonesuch.so" plan ./nonesuch.so
expect 2 "the path of a plug-in has a '/': ./plugin_template.so" plan plugin_template.so

# A rule broken: which, where, and the smallest world that shows it.
expect 3 "broken breaks 1 of" "$moesim" policy check ./plugin_broken.so
grep -q "^BROKEN  place covers" out.txt || complain "the broken rule is not named"
grep -q "layer 0: expert 0 has no slot" out.txt || complain "what is broken is not said"
grep -q "smallest case: 1 layers, 1 experts in 1 groups, 1 GPUs on 1 nodes" out.txt ||
    complain "the case is not the smallest: $(cat out.txt)"

# Fetching: each promise broken by a plug-in of its own, none by the one that keeps them.
expect 0 "" "$moesim" policy check ./plugin_fetching.so --cases 300
[ "$(grep -c "^kept    fetch " out.txt)" -eq 3 ] || complain "rules of fetching: $(cat out.txt)"
refuse_fetch() {
    expect 3 "fetching breaks" "$moesim" policy check "./plugin_fetching_$1.so" --cases 300
    grep -A2 "^BROKEN  fetch $2" out.txt | grep -q "$3" || complain "fetching $1: $(cat out.txt)"
}
refuse_fetch absent fits 'there is no such expert or GPU'
refuse_fetch overfull fits 'the GPU has no temporary slot left'
refuse_fetch resident fits 'the GPU holds a copy'
refuse_fetch twice fits 'it is fetched twice'
refuse_fetch address repeats 'equal views, other copies fetched'
refuse_fetch stale splits 'quotas of .* tokens for'
expect 0 "" "$moesim" policy check eplb --cases 50
expect 2 "no policy 'nonesuch'" "$moesim" policy check nonesuch
expect 2 "no command 'chekc'; there are: check" "$moesim" policy chekc x

# Compositions in a scenario: a plug-in beside it, labels in the report, the same bytes with any
# number of threads, and repeated from what was kept.
mkdir study
cp plugin_template.so study/
cp "$tests/../results/quickstart/group256-sample.trace.db" t.db
cat >study/s.yaml <<'END'
trace: ../t.db
model: group256
cluster: {nodes: 2, gpus_per_node: 4}
slots: 264
serving: {running_per_gpu: 4}
policies:
  - contiguous
  - dispatch=lp+place=eplb
  - eplb+dispatch=capacity:factor=1.1+group=least_loaded
  - ./plugin_template.so:copies=4+predict=ewma
seeds: 1
attribution: false
END
expect 0 '4 runs in ' "$moesim" run study/s.yaml --threads 1 -o run.db
mv out.txt one.txt
expect 0 '' "$moesim" run study/s.yaml --threads 2
cmp -s out.txt one.txt || complain 'compositions differ between 1 and 2 threads'
for label in eplb+dispatch=lp eplb+dispatch=capacity:factor=1.1+group=least_loaded \
    study/./plugin_template.so:copies=4+predict=ewma; do
    [ "$(grep -c "^  $label  " one.txt)" -ge 3 ] || complain "no rows of $label"
done
grep -q '^  dropped  *[0-9<.]* % of them under eplb+dispatch=capacity' one.txt || complain 'what was dropped is not said'
grep '^  eplb+dispatch=lp ' one.txt | grep -q ' +0.0 % ' || complain 'lp is not at the best split'
expect 0 '' "$moesim" repeat run.db
grep -q '^identical: ' out.txt || complain "repeat says: $(cat out.txt)"
expect 2 "policies: 'eplb' is named twice" "$moesim" run study/s.yaml \
    --set policies=contiguous,eplb,eplb+dispatch=even
expect 2 "policies: 'eplb+dispatch=lq': no dispatch policy 'lq'; there are: even" \
    "$moesim" run study/s.yaml --set policies=contiguous,eplb+dispatch=lq
expect 0 '' "$moesim" run study/s.yaml --set replicas=30 --set baseline=lpt \
    --set policies=lpt,./plugin_template.so
grep -q 'at most 30 copies' out.txt || complain 'the budget of copies is not said'
expect 2 'policy eplb: takes no budget of copies: its slots decide' "$moesim" run study/s.yaml \
    --set replicas=30 --set baseline=lpt --set policies=lpt,eplb
expect 2 'a plan places experts; dispatch is decided while serving' plan eplb+dispatch=lp
expect 2 'which a file of summed loads cannot give' plan affinity

# One door, nothing else, where there is a program to ask.
if command -v nm >/dev/null 2>&1; then
    nm -D --defined-only plugin_template.so | grep -v ' [wWVv] \|__\|_init\|_fini' |
        grep -vq 'moe_policy_plugin' && complain "the template shows more than its door"
fi
[ "$failures" -eq 0 ]
