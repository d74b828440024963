#!/bin/sh
# Runs every test: installs what is missing, builds into build-test/, tests, and closes with
# the line "N passed, N failed, N skipped". Exit code 0 when nothing failed.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
. sim/setup.sh

broken() # WHAT: no test could run
{
    setup_say "$1"
    echo '0 passed, 1 failed, 0 skipped'
    exit 1
}

setup_install build test || broken 'the tests need these packages'

setup_configure build-test --buildtype debugoptimized -Dsimulator=enabled -Dtests=enabled ||
    broken 'build-test/ cannot be configured'
setup_say 'building build-test/'
setup_quietly ninja -C build-test || broken 'build-test/ cannot be built'
rm -f build-test/meson-logs/testlog.json
meson test -C build-test --no-rebuild --print-errorlogs </dev/null || true
exec python3 tests/count_results.py build-test/meson-logs/testlog.json
