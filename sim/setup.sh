# shellcheck shell=sh
# What sim/quickstart.sh, tests/run.sh and .ci/run share: the list of packages, how to get
# them, and how to run a long step quietly. Sourced by POSIX shells, from the project's root.

# One line for each Debian package: what needs it, its name, how to see that it is there.
# Asking for the thing itself, not for the package, leaves alone a machine that has it from
# elsewhere, and says what is missing where there is no apt.
setup_packages()
{
    cat <<'END'
build gcc               header stdio.h
build libc6-dev         header stdio.h
build meson             command meson
build ninja-build       command ninja
build pkg-config        command pkg-config
build libgsl-dev        module gsl
build libsqlite3-dev    module sqlite3
build libjansson-dev    module jansson
build libyaml-dev       module yaml-0.1
build libzip-dev        module libzip
test  libcriterion-dev  module criterion
test  libglpk-dev       header glpk.h
check git               command git
check clang             command clang
check libclang-rt-dev   clang -fsanitize=address,undefined
check libomp-dev        clang -fopenmp
check llvm              command llvm-symbolizer
check clang-format      command clang-format
check clang-tidy        command clang-tidy
END
}

setup_say()
{
    printf 'moesim: %s\n' "$*" >&2
}

setup_has() # KIND WHAT: one line's last two fields
{
    case $1 in
    command) command -v "$2" ;;
    module) pkg-config --exists "$2" ;;
    header) printf '#include <%s>\n' "$2" | ${CC:-cc} -E - ;;
    clang) printf 'int main(void){return 0;}\n' | clang "$2" -x c - -o /dev/null ;;
    esac >/dev/null 2>&1
}

setup_missing() # USE...: the packages that are not there, on one line
{
    setup_packages | while read -r use package kind what; do
        case " $* " in
        *" $use "*) setup_has "$kind" "$what" || printf '%s ' "$package" ;;
        esac
    done
}

# Runs a command, showing what it printed only when it fails.
setup_quietly() # COMMAND...
{
    setup_log=$(mktemp) || return 1
    setup_status=0
    "$@" >"$setup_log" 2>&1 </dev/null || setup_status=$?
    if [ "$setup_status" -ne 0 ]; then
        cat "$setup_log" >&2
        setup_say "failed with exit code $setup_status: $*"
    fi
    rm -f "$setup_log"
    return "$setup_status"
}

setup_apt() # ARGUMENT...: apt-get as root, asking nothing
{
    if [ "$(id -u)" -eq 0 ]; then
        setup_quietly env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
            -o DPkg::Lock::Timeout=300 "$@"
    else
        setup_quietly sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
            -o DPkg::Lock::Timeout=300 "$@"
    fi
}

# Installs what is missing for these uses; calls nothing when nothing is.
setup_install() # USE...
{
    setup_wanted=$(setup_missing "$@")
    if [ -z "$setup_wanted" ]; then
        return 0
    fi
    if ! command -v apt-get >/dev/null 2>&1; then
        setup_say "there is no apt-get here; please install what Debian calls: $setup_wanted"
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            setup_say "neither root nor sudo; as root: apt-get install $setup_wanted"
            return 1
        fi
        sudo -v || return 1 # here, not in a quiet step, in case sudo wants a password
    fi
    setup_say "installing with apt-get (a minute or two): $setup_wanted"
    setup_apt update || setup_say "some package lists are old; trying with those that are there"
    # shellcheck disable=SC2086 # a list of names
    setup_apt install --no-install-recommends $setup_wanted
}

# Makes a build folder when there is none, and anew when it was made elsewhere: a tree that was
# moved or copied together with its build folder would otherwise go on building its old place.
setup_configure() # FOLDER OPTION...
{
    setup_folder=$1
    shift
    if [ -f "$setup_folder/build.ninja" ]; then
        setup_place=$(python3 -c 'import json, sys
print(json.load(open(sys.argv[1]))["directories"]["source"])' \
            "$setup_folder/meson-info/meson-info.json")
        if [ "$setup_place" = "$(pwd -P)" ]; then
            return 0
        fi
        setup_say "$setup_folder/ was made for another place; making it anew"
        rm -rf "$setup_folder"
    fi
    setup_say "configuring $setup_folder/"
    setup_quietly meson setup "$setup_folder" "$@"
}
