#!/bin/sh
# `moesim fit` and `moesim cal` from outside: script_fit.sh MOESIM TESTS_FOLDER SAMPLE_WORLD.
# Exit 0 when everything holds; says what does not.
set -u
moesim=$(realpath "$1") || exit 1
tests=$(realpath "$2") || exit 1
world=$(realpath "$3") || exit 1
. "$tests/expect.sh"

# says WORDS: standard output of the last command holds them.
says() {
    grep -qF -e "$1" out.txt || complain "no '$1' in: $(cat out.txt)"
}

"$world" a.cal.db || complain "no samples"
cp a.cal.db untouched.cal.db
expect 0 "" "$moesim" cal info a.cal.db
says "not fitted yet"
expect 0 "" "$moesim" cal verify a.cal.db

# Into another file: the samples' own stays as it is; the same again gives the same bytes.
expect 0 "" "$moesim" fit a.cal.db -o b.cal.db --gate
says "calibrated"
cmp a.cal.db untouched.cal.db || complain "the input changed"
expect 2 "exists already" "$moesim" fit a.cal.db -o b.cal.db
expect 0 "" "$moesim" fit a.cal.db -o c.cal.db --format markdown
says "| expert-4096x1536x32-bf16-swiglu-own | heldout |"
cmp b.cal.db c.cal.db || complain "two fits of the same samples differ"
expect 0 "" "$moesim" fit a.cal.db
expect 0 "" "$moesim" cal verify a.cal.db
expect 0 "" "$moesim" cal info a.cal.db
says "expert-4096x1536-bf16-swiglu-own"
says "GPUs measured one by one: 2"

# Passes repeat, and both programs that say so say how often; held-out errors by how rows lie.
expect 0 "" "$moesim" cal verify a.cal.db
says "ok       nine of ten later passes are within 1.5 % of the first"
grep -E "^all +[0-9]+ +100.0 +100.0" out.txt >/dev/null || complain "repeats: $(cat out.txt)"
"$world" p.cal.db || complain "no samples"
python3 - <<'PY' || complain "python3"
import sqlite3
db = sqlite3.connect('p.cal.db')
db.execute("UPDATE sample_point SET histogram = 'random-2' WHERE role = 'heldout' AND tokens = 72")
db.execute("UPDATE sample_point SET histogram = 'some' WHERE role = 'heldout' AND tokens = 80")
db.execute("UPDATE sample SET median_us = 1.02 * median_us, min_us = NULL WHERE pass = 2")
db.commit()
PY
expect 0 "" "$moesim" fit p.cal.db
grep -E "^all +12 +[0-9.]+ +2 +[0-9.]+ +2 +[0-9.]+$" out.txt >/dev/null ||
    complain "rows apart: $(cat out.txt)"
grep -E "^expert +[0-9]+ +[0-8]?[0-9.]+ " out.txt >/dev/null || complain "repeats: $(cat out.txt)"

# A model that anchors do not show: written, named, and with --gate exit code 3.
"$world" d.cal.db switch || complain "no samples"
expect 3 "missed their gate" "$moesim" fit d.cal.db --gate
says "MISSED"
expect 0 "" "$moesim" fit d.cal.db

# The slow card stands out.
"$world" e.cal.db slow || complain "no samples"
expect 0 "" "$moesim" fit e.cal.db
grep -E "GPU-00000001-0000 +compute +1.0[34]" out.txt >/dev/null || complain "slow: $(cat out.txt)"

# Another day: merged, compared.
"$world" f.cal.db second || complain "no samples"
expect 0 "" "$moesim" cal merge a.cal.db f.cal.db a.cal.db -o g.cal.db
says "2 runs (1 were there twice), 2 GPUs"
expect 0 "" "$moesim" fit g.cal.db --gate
expect 0 "" "$moesim" cal compare a.cal.db f.cal.db
says "580.1  ->  590.2"
expect 0 "" "$moesim" cal plot a.cal.db all_to_all-2 --width 50 --height 8
says "x held out"
expect 0 "" "$moesim" cal ranks a.cal.db --to 8
says "over 8 GPUs by the trend"
says "published trend; extrapolated, not measured"
expect 2 "no exchange was measured over 3 GPUs" "$moesim" cal ranks a.cal.db --from 3 --to 8
expect 2 "to more GPUs than from are allowed" "$moesim" cal ranks a.cal.db --from 4 --to 4
expect 2 "no series 'nonesuch'" "$moesim" cal plot a.cal.db nonesuch

# A run reads the fitted file.
sed -e 's|^calibration:.*|calibration: '"$work"'/a.cal.db|' -e 's/^seeds: .*/seeds: 1/' \
    -e 's/^policies: .*/policies: [contiguous, eplb]/' -e 's/passes: .*/passes: 1/' -e 's/running_per_gpu: .*/running_per_gpu: 2/' \
    -e 's|^trace: |trace: '"$tests"'/../results/quickstart/|' \
    "$tests/../results/quickstart/scenario.yaml" >s.yaml
expect 0 "" "$moesim" run s.yaml -o r.db
says "a.cal.db, hash"
# What was measured says how well it is fitted, what was not where it comes from.
says "deepseek-v3-fp8: published: "
sed -e 's/nodes: .*/nodes: 16/' -e 's/gpus_per_node: .*/gpus_per_node: 2/' s.yaml >pairs.yaml
expect 0 "" "$moesim" run pairs.yaml
says "all_to_all-2: measured; meets its gate: held-out"
python3 - <<'PY' || complain "python3"
import sqlite3
db = sqlite3.connect('a.cal.db')
db.execute("UPDATE fit_quality SET status = 'missed', mape = 0.113 WHERE series = 'all_to_all-2'")
db.execute("UPDATE segment SET provenance = 'extrapolated' WHERE provenance = 'measured'")
db.commit()
PY
expect 0 "" "$moesim" run pairs.yaml
says "all_to_all-2: measured; MISSED its gate: held-out 11.3 %"
says "missed their gate count as extrapolated"
expect 0 "" "$moesim" run pairs.yaml --format json
says '"status": "missed"'

expect 2 "no series was measured with backend 'nosuch'; there is: " "$moesim" fit f.cal.db \
    -o n.cal.db --backend nosuch
[ ! -e n.cal.db ] || complain "an unknown backend left a file behind"
cp "$tests/../results/calibrations/h200-published.csv" table.csv
expect 0 "" "$moesim" fit table.csv
says "fit,deepseek-v3-fp8"
expect 2 "table.csv: is no store of samples" "$moesim" fit table.csv -o n.cal.db
expect 2 "table.csv: is no store of samples" "$moesim" fit table.csv --gate

# Damage is refused with its place, and nothing is left behind.
python3 - <<'PY' || complain "python3"
import sqlite3
db = sqlite3.connect('f.cal.db')
db.execute('UPDATE sample SET median_us = 0 WHERE id = 17')
db.commit()
PY
cp f.cal.db bad.cal.db
expect 2 "table sample, row id 17: median_us is 0" "$moesim" fit f.cal.db
expect 2 "table sample, row id 17" "$moesim" fit f.cal.db -o h.cal.db
[ ! -e h.cal.db ] && [ ! -e h.cal.db.partial ] || complain "a refused fit left something behind"
cmp f.cal.db bad.cal.db || complain "a refused fit changed its input"
expect 2 "checks say damage" "$moesim" cal verify f.cal.db

[ "$failures" -eq 0 ] && echo "all held"
exit "$failures"
