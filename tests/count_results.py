#!/usr/bin/env python3
"""Counts the tests in Meson's testlog.json files and prints one plain line.

A TAP test counts as many as it lists (a Criterion suite has many), any other as one. A suite
that lists only good tests and still fails (a leak found at exit, a crash) has failed once more.
Exit code 1 when a test failed, or when none ran: an empty run proves nothing.
"""
import json
import re
import sys

PASSED = {'OK', 'EXPECTEDFAIL'}
POINT = re.compile(r'^(not )?ok\b[^#\n]*(#\s*(SKIP|TODO)\b)?', re.IGNORECASE | re.MULTILINE)


def count(test):
    """[passed, failed, skipped] of one line of the log."""
    passed = failed = skipped = 0
    output = test.get('stdout', '')
    if output.startswith('TAP version'):
        for bad, _, directive in POINT.findall(output):
            if directive:
                skipped += 1
            elif bad:
                failed += 1
            else:
                passed += 1
    good = test['result'] in PASSED or test['result'] == 'SKIP'
    if not good and failed == 0:
        failed = 1
    elif good and passed + failed + skipped == 0:
        passed = int(test['result'] in PASSED)
        skipped = 1 - passed
    return passed, failed, skipped


def main():
    total = [0, 0, 0]
    for path in sys.argv[1:]:
        try:
            with open(path, encoding='utf-8') as log:
                for line in log:
                    for i, n in enumerate(count(json.loads(line))):
                        total[i] += n
        except FileNotFoundError:
            pass  # Meson writes no log when it runs no test
    print(f'{total[0]} passed, {total[1]} failed, {total[2]} skipped')
    return 1 if total[1] > 0 or total[0] == 0 else 0


if __name__ == '__main__':
    sys.exit(main())
