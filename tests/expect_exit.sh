#!/bin/sh
# expect_exit.sh CODE TEXT COMMAND [ARGUMENT ...]: the command must end with exit code CODE and
# print TEXT somewhere. CODE may be a list: "0 77" where a machine may lack what is tested.
codes=$1
text=$2
shift 2
output=$("$@" 2>&1 </dev/null)
code=$?
case " $codes " in
*" $code "*) ;;
*)
    printf 'exit code %s, expected %s; printed:\n%s\n' "$code" "$codes" "$output"
    exit 1
    ;;
esac
case $output in
*"$text"*) exit 0 ;;
esac
printf 'expected "%s" in:\n%s\n' "$text" "$output"
exit 1
