#!/bin/sh
# From a bare Debian 12 to the report of the bundled study: installs what is missing,
# builds a release into build/, runs results/quickstart/scenario.yaml. Asks nothing, says on
# stderr what it does, and prints only the report on stdout. The second time it only runs.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
. sim/setup.sh

setup_install build

# A newer compiler's new warnings are ours to mend, not to stop a user with.
setup_configure build --buildtype release -Dwerror=false -Dsimulator=enabled
if ! grep -q '"name": "buildtype", "value": "release"' build/meson-info/intro-buildoptions.json; then
    setup_say 'build/ is no release build; making it one'
    setup_quietly meson configure build --buildtype release
fi
if ! ninja -C build -n moesim | grep -q 'no work to do'; then
    setup_say 'building build/moesim'
    setup_quietly ninja -C build moesim
fi
if grep -q '^build moecal:' build/build.ninja; then
    setup_quietly ninja -C build moecal || setup_say 'going on without moecal'
fi

setup_say 'running build/moesim run results/quickstart/scenario.yaml'
exec build/moesim run results/quickstart/scenario.yaml
