#!/bin/sh
# moesim trace import, seen from outside: killed at many moments, on a full disk, on a
# read-only file system, with bad inputs. usage: script_trace_import.sh MOESIM TESTS_FOLDER
# Exit code 77 when all passed but mounts are not permitted here.
set -u
moesim=$1
sample=$2/../results/quickstart/group256-sample.trace.db

# A namespace of its own: mounts vanish with the script, and need no root.
if [ -z "${MOE_TEST_NAMESPACE-}" ] && unshare -rm true 2>/dev/null; then
    MOE_TEST_NAMESPACE=1 exec unshare -rm sh "$0" "$@"
fi

dir=$(mktemp -d) || exit 1
mounts=
cleanup() {
    for m in $mounts; do umount "$m" 2>/dev/null; done
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

fail() {
    echo "FAILED: $*"
    exit 1
}

# expect CODE TEXT COMMAND...: the exit code, and TEXT somewhere in what it prints.
expect() {
    code=$1 text=$2
    shift 2
    "$@" >"$dir/out" 2>&1
    got=$?
    [ $got -eq "$code" ] || fail "exit code $got, expected $code: $* : $(cat "$dir/out")"
    grep -qF -- "$text" "$dir/out" || fail "'$text' is not in the output of $* : $(cat "$dir/out")"
}

# npy FILE DESCR SHAPE: header of version 1.0; the values come from standard input.
npy() {
    header=$(printf "{'descr': '%s', 'fortran_order': False, 'shape': %s, }" "$2" "$3")
    {
        printf '\223NUMPY\001\000%b\000' "\\0$(printf '%o' $((${#header} + 1)))"
        printf '%s\n' "$header"
        cat
    } >"$1"
}

# input NAME REQUESTS: requests of 60 + 41 - 1 = 100 rows of 8 layers x top-8. The ids are
# the characters of the numbers 1, 2, 3 ...: below 256, and the same everywhere.
input() {
    mkdir "$dir/$1"
    seq 1 $(($2 * 2000)) | head -c $(($2 * 6400)) |
        npy "$dir/$1/experts.npy" '|u1' "($(($2 * 100)), 8, 8)"
    head -c "$2" /dev/zero | tr '\0' '<' | npy "$dir/$1/prompt_len.npy" '|u1' "($2,)"
    head -c "$2" /dev/zero | tr '\0' ')' | npy "$dir/$1/output_len.npy" '|u1' "($2,)"
    echo '{"experts": 256, "top_k": 8, "moe_layers": 8, "model": "made up"}' >"$dir/$1/meta.json"
}

content() {
    "$moesim" trace info "$1" | grep -o 'content [0-9a-f]*' | head -n 1
}

input large 20000
input small 100
expect 0 'made up, 20000 requests, 2000000 tokens' \
    "$moesim" trace import --format numpy "$dir/large" -o "$dir/whole.db"
expect 0 'nothing was changed' "$moesim" trace import "$dir/large" -o "$dir/whole.db"
expect 0 'small.db: made up' "$moesim" trace import "$dir/small" -o "$dir/small.db"
whole=$(content "$dir/whole.db")
small=$(content "$dir/small.db")
[ -n "$whole" ] && [ "$whole" != "$small" ] || fail "no content hashes"

# 1. Killed whenever the file has grown by another 17 MB, and gone on from there each time.
killed=0
limit=1
while :; do
    "$moesim" trace import "$dir/large" -o "$dir/killed.db" >"$dir/killed.out" 2>&1 &
    pid=$!
    while kill -0 $pid 2>/dev/null; do
        size=$(stat -c %s "$dir/killed.db" 2>/dev/null || echo 0)
        if [ "$size" -ge "$limit" ]; then
            kill -9 $pid 2>/dev/null && killed=$((killed + 1))
            break
        fi
    done
    wait $pid 2>/dev/null
    grep -q 'content' "$dir/killed.out" && break
    limit=$((limit + 17000000))
    if [ -s "$dir/killed.db" ] && ! "$moesim" trace info "$dir/killed.db" >"$dir/out" 2>&1; then
        grep -qE 'unfinished|interrupted' "$dir/out" || fail "a kill leaves: $(cat "$dir/out")"
    fi
    [ $killed -lt 100 ] || fail "an import that never ends"
done
expect 0 'ok       content hash as at the import' "$moesim" trace verify "$dir/killed.db"
[ "$(content "$dir/killed.db")" = "$whole" ] || fail "other content after $killed kills"
echo "killed $killed times; the last run: $(tail -n 1 "$dir/killed.out")"

# 2. Killed at moments that have nothing to do with the file.
rm -f "$dir/killed.db"
for moment in 0.001 0.004 0.011 0.017 0.023 0.031 0.043 0.059 0.083 0.113 0.151; do
    "$moesim" trace import "$dir/large" -o "$dir/killed.db" >/dev/null 2>&1 &
    pid=$!
    sleep $moment
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
done
expect 0 '' "$moesim" trace import "$dir/large" -o "$dir/killed.db"
expect 0 'content hash as at the import' "$moesim" trace verify "$dir/killed.db"
[ "$(content "$dir/killed.db")" = "$whole" ] || fail "other content after kills at fixed times"
rm -f "$dir/killed.db"

# 3. Bad inputs: exit code 2, nothing left behind, an older store as it was.
bad() {
    expect 2 "$1" "$moesim" trace import --format numpy "$dir/bad" -o "$dir/bad.db"
    [ -z "$(ls "$dir" | grep '^bad.db')" ] || fail "left behind: $(ls "$dir")"
    cp "$dir/small.db" "$dir/old.db"
    expect 2 "$1" "$moesim" trace import --overwrite --format numpy "$dir/bad" -o "$dir/old.db"
    cmp -s "$dir/small.db" "$dir/old.db" || fail "an older store was changed"
    [ "$(ls "$dir" | grep -c '^old.db')" -eq 1 ] || fail "left behind: $(ls "$dir")"
    rm -rf "$dir/bad"
}
cp -r "$dir/small" "$dir/bad"
head -c 300000 "$dir/small/experts.npy" >"$dir/bad/experts.npy"
bad 'bytes are expected, 300000 were found'
cp -r "$dir/large" "$dir/bad"
echo '{"experts": 57, "top_k": 8, "moe_layers": 8, "model": "made up"}' >"$dir/bad/meta.json"
bad 'row 0, layer 2, k 0: expert 57; the model has experts 0 to 56'
# ... in the last row, when batches have been committed already.
cp -r "$dir/large" "$dir/bad"
echo '{"experts": 250, "top_k": 8, "moe_layers": 8, "model": "made up"}' >"$dir/bad/meta.json"
size=$(stat -c %s "$dir/bad/experts.npy")
printf '\372' | dd of="$dir/bad/experts.npy" bs=1 seek=$((size - 1)) conv=notrunc 2>/dev/null
bad 'row 1999999, layer 7, k 7: expert 250; the model has experts 0 to 249'
cp -r "$dir/small" "$dir/bad"
head -c 100 /dev/zero | tr '\0' '=' | npy "$dir/bad/prompt_len.npy" '|u1' '(100,)'
bad 'the lengths sum to 10100 rows'
cp -r "$dir/small" "$dir/bad"
head -c 100 /dev/zero | npy "$dir/bad/output_len.npy" '|u1' '(100,)'
bad 'request 0 has length 0'

# 4. A store of a newer schema (user_version is the number at byte 60).
cp "$dir/small.db" "$dir/newer.db"
printf '\000\000\000\003' | dd of="$dir/newer.db" bs=1 seek=60 conv=notrunc 2>/dev/null
cp "$dir/newer.db" "$dir/newer.before"
expect 2 'schema version 3; this program reads 1 to 2' "$moesim" trace info "$dir/newer.db"
expect 2 'schema version 3; this program reads 1 to 2' \
    "$moesim" trace import "$dir/small" -o "$dir/newer.db"
cmp -s "$dir/newer.db" "$dir/newer.before" || fail "a newer store was changed"
expect 2 'give --overwrite' "$moesim" trace import "$dir/large" -o "$dir/small.db"
expect 1 'no such file' "$moesim" trace import "$dir/nothing" -o "$dir/n.db"
expect 1 'No such file or directory' "$moesim" trace import "$dir/small" -o "$dir/no/such/folder.db"

# 5. The sample that comes with the project is what its provenance says.
expect 0 'content d1e4075debf52f81' "$moesim" trace info "$sample"
expect 0 'requests 0 to 496 of 6500, of the trace with content 6b34f06ee23ae736' \
    "$moesim" trace info "$sample"

# 6. The world fails: exit code 1.
mkdir "$dir/disk" "$dir/locked"
mount -t tmpfs -o size=2m tmpfs "$dir/disk" 2>/dev/null || {
    echo "mount is not permitted here: full disk and read-only file system not tested"
    exit 77
}
mounts="$dir/disk"
expect 1 'full' "$moesim" trace import "$dir/large" -o "$dir/disk/t.db"
[ -z "$(ls "$dir/disk")" ] || fail "left on a full disk: $(ls "$dir/disk")"
cp "$dir/small.db" "$dir/disk/t.db" || fail "the small store does not fit"
expect 1 'full' "$moesim" trace import --overwrite "$dir/large" -o "$dir/disk/t.db"
cmp -s "$dir/small.db" "$dir/disk/t.db" || fail "a full disk cost an older store"
[ "$(ls "$dir/disk")" = t.db ] || fail "left on a full disk: $(ls "$dir/disk")"
rm "$dir/disk/t.db"
mount -o remount,size=60m "$dir/disk" || fail "remount"
expect 1 'the same command goes on from it' "$moesim" trace import "$dir/large" -o "$dir/disk/t.db"
mount -o remount,size=200m "$dir/disk" || fail "remount"
expect 0 'went on from row' "$moesim" trace import "$dir/large" -o "$dir/disk/t.db"
[ "$(content "$dir/disk/t.db")" = "$whole" ] || fail "other content after a full disk"

cp "$dir/small.db" "$dir/locked/t.db"
cp "$sample" "$dir/locked/s.db"
mount --bind "$dir/locked" "$dir/locked" && mount -o remount,ro,bind "$dir/locked" || exit 77
mounts="$mounts $dir/locked"
expect 0 "$small" "$moesim" trace info "$dir/locked/t.db"
expect 0 '46199 rows, 2956736 choices, 0 of them' "$moesim" trace verify "$dir/locked/s.db"
expect 0 'nothing was changed' "$moesim" trace import "$dir/small" -o "$dir/locked/t.db"
expect 1 '' "$moesim" trace import "$dir/small" -o "$dir/locked/new.db"
expect 1 '' "$moesim" trace import --overwrite "$dir/large" -o "$dir/locked/t.db"
expect 0 'content hash as at the import' "$moesim" trace verify "$dir/locked/t.db"
[ "$(ls "$dir/locked" | tr '\n' ' ')" = 's.db t.db ' ] || fail "left: $(ls "$dir/locked")"
[ "$(content "$dir/locked/t.db")" = "$small" ] || fail "a read-only store was changed"
echo "all passed"
