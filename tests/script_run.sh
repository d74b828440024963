#!/bin/sh
# `moesim run`, `compare` and `repeat` from outside: script_run.sh MOESIM TESTS_FOLDER.
# Exit 0 when everything holds; says what does not.
set -u
moesim=$(realpath "$1") || exit 1
tests=$(realpath "$2") || exit 1
sample=$(realpath "$tests/../results/quickstart/group256-sample.trace.db") || exit 1
. "$tests/expect.sh"

# Nothing but what is named lies in the folder.
expect_files() {
    found=$(ls | grep -v -e '^out.txt$' -e '^err.txt$' | tr '\n' ' ')
    [ "$found" = "$*${*:+ }" ] || complain "files: '$found', expected: '$*'"
}

cp "$sample" t.db || exit 1
cat >s.yaml <<'END'
name: small
trace: t.db
model: group256
cluster:
  nodes: 2
  gpus_per_node: 4
slots: 264
serving:
  running_per_gpu: 4
policies: [contiguous, eplb]
seeds: 2
END

# ---- the same scenario: the same bytes, with any number of threads ----
for form in table json csv markdown; do
    expect 0 '4 runs in ' "$moesim" run s.yaml --threads 1 --format $form
    mv out.txt one.$form
    expect 0 '' "$moesim" run s.yaml --threads 2 --format $form
    cmp -s out.txt one.$form || complain "$form differs between 1 and 2 threads"
done
grep -q 'Stragglers: eplb' one.table || complain 'no stragglers in the table'
grep -q '"complete": true' one.json || complain 'tokens are missing'
rm one.*
expect_files s.yaml t.db

# ---- fetched copies beside what is priced without them ----
set -- run s.yaml --set policies=eplb+dispatch=ultraep --set baseline=eplb+dispatch=ultraep --set seeds=1
expect 2 'steps in two halves do not: set serving.overlap' "$moesim" "$@" \
    --set serving.overlap=two_batch --set serving.shared_expert=serial
expect 2 'layers that draft do not: set serving.draft_layers' "$moesim" "$@" --set serving.drafts=1
expect 0 '1 run in ' "$moesim" "$@" --set serving.drafts=1 --set serving.draft_layers=0

# ---- run.db, repeat ----
expect 0 '' "$moesim" run s.yaml -o run.db --detail events.csv --detail-steps 2
[ "$(cut -d, -f1 events.csv | sort -u | tr '\n' ' ')" = '0 1 step ' ] || complain 'steps of --detail'
expect 2 'run.db: exists already' "$moesim" run s.yaml -o run.db
expect 2 'events.csv: exists already' "$moesim" run s.yaml --detail events.csv
expect 2 'both name' "$moesim" run s.yaml --detail x -o x
expect_files events.csv run.db s.yaml t.db
cp run.db first.db
expect 0 '' "$moesim" run s.yaml -o run.db --threads 1 --overwrite
cmp -s run.db first.db || complain 'run.db differs between runs'
expect 0 '' "$moesim" repeat run.db
grep -q '^identical: ' out.txt || complain "repeat says: $(cat out.txt)"
mv t.db moved.db
expect 1 't.db' "$moesim" repeat run.db
expect 0 '' "$moesim" repeat run.db --trace moved.db --threads 1
mv moved.db t.db

# Another trace, another calibration, another report.
cp run.db other.db
python3 - <<'END'
import sqlite3
db = sqlite3.connect('other.db')
db.execute("UPDATE run SET value = 'fedcba9876543210' WHERE name = 'trace_hash'")
db.commit()
END
expect 2 'the trace has hash' "$moesim" repeat other.db
cp run.db other.db
python3 - <<'END'
import sqlite3
db = sqlite3.connect('other.db')
db.execute("UPDATE run SET value = 'fedcba9876543210' WHERE name = 'calibration_hash'")
db.commit()
END
expect 2 'has hash' "$moesim" repeat other.db
cp run.db other.db
python3 - <<'END'
import json, sqlite3
db = sqlite3.connect('other.db')
text = db.execute("SELECT value FROM run WHERE name = 'report'").fetchone()[0]
text = text.replace('"slots": 264', '"slots": 265')
db.execute("UPDATE run SET value = ? WHERE name = 'report'", (text,))
db.commit()
END
expect 3 'asked.slots: 265 before, 264 now' "$moesim" repeat other.db
head -c 5000 run.db >other.db
expect 2 'other.db' "$moesim" repeat other.db
expect 2 'not a run store' "$moesim" repeat t.db
expect 1 'absent.db' "$moesim" repeat absent.db
rm other.db first.db

# ---- compare: no scenario, and the chosen defaults are said ----
expect 0 '' "$moesim" compare t.db --model group256 --gpus 16 --policies lpt,eplb --seeds 1 \
    --set serving.running_per_gpu=2
grep -q '2 nodes of 8 GPUs' out.txt || complain 'compare does not say its nodes'
grep -q 'lpt is the baseline' out.txt || complain 'compare does not say its baseline'
grep -q '272 slots' out.txt || complain 'compare does not say its slots'
# 16 x 2 running, 8 scored for each: 256 of the 398 of one pass
grep -q '1 pass over' out.txt || complain 'compare does not say its passes'
expect 2 '--model is needed' "$moesim" compare t.db --gpus 16
expect 2 '--gpus is needed' "$moesim" compare t.db --model group256
expect 2 '288 slots do not divide over 7 GPUs' "$moesim" compare t.db --model group256 --gpus 7 \
    --slots 288
expect 2 'do not divide' "$moesim" compare t.db --model group256 --gpus 16 --nodes 3
expect 2 '--set makes it 1 nodes of 8' "$moesim" compare t.db --model group256 --gpus 16 \
    --set cluster.nodes=1
expect 2 '--slots 288' "$moesim" compare t.db --model group256 --gpus 16 --slots 288 --set slots=320
expect 2 'is empty' "$moesim" compare t.db --model group256 --gpus 16 -o ''
expect 2 'nonesuch' "$moesim" compare t.db --model group256 --gpus 16 --policies lpt,nonesuch
expect 2 'must be equal' "$moesim" compare t.db --model mixtral-8x7b --gpus 8

# ---- bad input: exit 2, a clear sentence, nothing left behind ----
printf 'trace: t.db\nmodel: deepseek-v3\nslotts: 288\n' >bad.yaml
expect 2 'bad.yaml:3' "$moesim" run bad.yaml -o bad.db
expect 2 'slots' "$moesim" run s.yaml --set slotts=288 -o bad.db
expect 2 '--seeds' "$moesim" run s.yaml --seeds 101 -o bad.db
expect 2 '--detail-steps' "$moesim" run s.yaml --detail x --detail-steps 0 -o bad.db
expect 2 "no form 'html'; there are: table json csv markdown" "$moesim" run s.yaml --format html
expect 2 "unknown option '--nonesuch'" "$moesim" run s.yaml --nonesuch
expect 2 'SCENARIO.yaml is missing' "$moesim" run
expect 2 'unexpected argument' "$moesim" run s.yaml s.yaml
expect 2 'no step is left to score' "$moesim" run s.yaml --set serving.running_per_gpu=4096 \
    -o bad.db --detail bad.csv
expect 1 'absent.yaml' "$moesim" run absent.yaml
expect 1 'nowhere/run.db' "$moesim" run s.yaml -o nowhere/run.db
rm bad.yaml
# An interrupt leaves no half-written file.
"$moesim" run s.yaml --set serving.passes=2000 --detail half.csv >out.txt 2>err.txt &
sleep 1
kill -TERM $!
wait $!
[ $? -eq 130 ] || complain 'an interrupted run does not end with 130'
expect_files events.csv run.db s.yaml t.db

# ---- a policy that does not fit is an answer ----
expect 0 '' "$moesim" run s.yaml --seeds 1 --set model=deepseek-v3 --set cluster.memory_gb=60
grep -q 'does not fit: weights need' out.txt || complain 'it is not said that nothing fits'
grep -q 'None: no policy' out.txt || complain 'no verdict is not said'

# ---- help ----
for command in run compare repeat; do
    expect 0 '' "$moesim" $command --help
    grep -q "^usage: moesim $command" out.txt || complain "$command --help"
done

# ---- the world failing: exit 1 ----
if [ -w /dev/full ]; then
    "$moesim" run s.yaml --seeds 1 >/dev/full 2>err.txt
    [ $? -eq 1 ] || complain "a full disk under the report: $(cat err.txt)"
fi

[ "$failures" -eq 0 ] || echo "$failures failures"
[ "$failures" -eq 0 ]
