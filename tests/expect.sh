# For the script tests, which source it: a folder of their own, and what a command must do.
# shellcheck shell=sh
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

complain() {
    echo "FAILED: $1"
    failures=$((failures + 1))
}

# expect CODE WORDS COMMAND...: the exit code, and words that standard error must hold.
expect() {
    code=$1
    words=$2
    shift 2
    "$@" >out.txt 2>err.txt
    got=$?
    [ "$got" -eq "$code" ] || complain "exit $got, not $code: $* ($(cat err.txt))"
    [ -z "$words" ] || grep -qF -e "$words" err.txt || complain "no '$words' in: $(cat err.txt)"
}
