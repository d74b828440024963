#!/bin/sh
# Recorded samples of eleven real H200 (results/calibrations/cards), and the same with one of them
# slowed on purpose: `moesim fit` finds that one and no other. script_cards.sh MOESIM TESTS_FOLDER.
# Exit 0 when everything holds; says what does not.
set -u
moesim=$(realpath "$1") || exit 1
tests=$(realpath "$2") || exit 1
. "$tests/expect.sh"
# One of the run of four: of two, half of what is slow would count as the day's.
slow=GPU-c5291429

# factor CLASS UUID: what runs would draw for the card.
factor() {
    awk -v card="$2" -v class="$1" 'index($1, card) == 1 && $2 == class { print $3; exit }' out.txt
}

# between WHAT LOW VALUE HIGH
between() {
    awk -v low="$2" -v value="$3" -v high="$4" 'BEGIN { exit !(low <= value && value <= high) }' ||
        complain "$1 is $3, not from $2 to $4"
}

cp "$tests/../results/calibrations/cards/h200.cal.db" cards.cal.db && chmod u+w cards.cal.db
expect 0 "" "$moesim" fit cards.cal.db
between "the card as it was" 0.99 "$(factor memory "$slow")" 1.01
cp cards.cal.db slow.cal.db
python3 - "$slow" <<'PY' || complain "python3"
import sqlite3
import sys

db = sqlite3.connect('slow.cal.db')
times = ('min_us', 'p5_us', 'p25_us', 'median_us', 'p75_us', 'p95_us', 'p99_us', 'mad_us')
db.execute('UPDATE sample SET %s WHERE gpu = (SELECT id FROM sample_gpu WHERE uuid LIKE ?)' %
           ', '.join('%s = %s * 1.15' % (time, time) for time in times), (sys.argv[1] + '%',))
db.commit()
PY
expect 0 "" "$moesim" fit slow.cal.db
between "the slowed card's memory" 1.11 "$(factor memory "$slow")" 1.16
between "the slowed card's arithmetic" 1.03 "$(factor compute "$slow")" 1.20
for card in GPU-d89fca0f GPU-acda90a7 GPU-5f8c9da7 GPU-275bb2ca GPU-de8d0be7 GPU-64585b80 \
    GPU-0820cecb GPU-a6abdf58 GPU-e7af4bec GPU-5badf4d9; do
    between "the memory of $card" 0.98 "$(factor memory "$card")" 1.02
done
expect 0 "" "$moesim" cal compare cards.cal.db slow.cal.db
grep -q '11 and 11, 11 of them the same' out.txt || complain "not the same cards: $(cat out.txt)"

[ "$failures" -eq 0 ] && echo "all held"
exit "$failures"
