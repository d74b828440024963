#!/usr/bin/env python3
"""Holds the rules of the tree that no compiler holds.

check_tree.py includes ROOT   dependencies point one way
check_tree.py sizes ROOT      top level as agreed; no long file, no large file, no large tree
"""
import os
import re
import subprocess
import sys

TOP = {'meson.build', 'meson_options.txt', 'sim', 'calibrate', 'traces', 'policies', 'kernels',
       'tests', 'results', 'README.md', 'LICENSE'}
SOURCES = ('.c', '.h', '.cu', '.cuh', '.def')
SCRIPTS = ('.py', '.sh', 'meson.build')
LINES_MAX = 600
FILE_BYTES_MAX = 15_000_000
TREE_BYTES_MAX = 40 << 20

# Part of the tree: the parts it may include besides itself. Inside sim and inside calibrate each
# part may include all to its left.
SIM = ['sim/base', 'sim/settings', 'sim/model', 'sim/scenario', 'sim/cost', 'sim/calibration',
       'sim/arrival', 'sim/engine', 'sim/report', 'sim/command']
CALIBRATE = ['calibrate/device', 'calibrate/timing', 'calibrate/blas', 'calibrate/expert',
             'calibrate/bench', 'calibrate/samples', 'calibrate/collective', 'calibrate/measure']
# A policy is one file that stands alone: of policies/ it knows the interface and the solvers.
POLICY_KINDS = ['policies/place', 'policies/dispatch', 'policies/predict', 'policies/group']
POLICIES = {'policies', 'policies/solve', 'policies/check'}
MAY_INCLUDE = {
    'sim/base': set(),
    'traces': {'sim/base'},
    'policies': {'sim/base', 'traces'},
    'policies/solve': {'sim/base', 'traces', 'policies'},
    'policies/check': {'sim/base', 'traces', 'policies'},
    **{kind: {'sim/base', 'traces', 'policies', 'policies/solve'} for kind in POLICY_KINDS},
    'kernels': {'sim/base'},
    **{name: {'sim/base', 'kernels', *CALIBRATE[:place]} for place, name in enumerate(CALIBRATE)},
    'calibrate/samples': {'sim/base'},
    'calibrate': {'sim/base', 'kernels', *CALIBRATE},  # calibrate/main.c and the verbs
    'sim': {'traces', *POLICIES, 'calibrate/samples', *SIM},  # sim/main.c
}
for place, name in enumerate(SIM[1:], start=1):
    MAY_INCLUDE[name] = {'traces', *POLICIES, 'calibrate/samples', *SIM[:place]}

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def part_of(path):
    """The part that a file belongs to, or None for one that belongs to none."""
    folders = path.split('/')[:-1]
    for name in ('/'.join(folders[:2]), '/'.join(folders[:1])):
        if name in MAY_INCLUDE and not (name in ('sim', 'calibrate') and len(folders) > 1):
            return name
    return None


def fault(path, target):
    """What is wrong with `#include "target"` in path, or None."""
    mine, theirs = part_of(path), part_of(target)
    if path.startswith('tests/'):
        # The engine's slow twin proves something only while it shares nothing with the engine.
        if os.path.basename(path).startswith('engine_twin') and theirs in ('sim/engine',
                                                                           'sim/cost'):
            return f'the twin of the engine may not include {theirs}'
        return None
    if mine is None:
        return 'this folder has no rule in tests/check_tree.py'
    if theirs is None:
        return 'not a path from the root of the tree into one of its parts'
    if theirs != mine and theirs not in MAY_INCLUDE[mine]:
        return f'{mine} may include only: {", ".join(sorted(MAY_INCLUDE[mine])) or "itself"}'
    return None


def tracked(root):
    """Paths of the tracked files; none where there is no git to ask."""
    try:
        # safe.directory: also where the clone belongs to another user.
        command = ['git', '-c', 'safe.directory=*', '-C', root, 'ls-files', '-z']
        listed = subprocess.run(command, check=True, capture_output=True,
                                stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    paths = [path for path in listed.decode().split('\0') if path]
    return [path for path in paths if os.path.isfile(os.path.join(root, path))]


def walked(root):
    """All files below the agreed folders; for a copy of the tree without git."""
    return [os.path.relpath(os.path.join(folder, name), root)
            for top in sorted(TOP) for folder, _, names in os.walk(os.path.join(root, top))
            for name in names]


def check_includes(root, paths):
    faults = []
    seen = 0
    for path in paths:
        if not path.endswith(SOURCES):
            continue
        with open(os.path.join(root, path), encoding='utf-8') as file:
            text = file.read()
        for target in INCLUDE.findall(text):
            seen += 1
            why = fault(path, target)
            if why is None and not os.path.isfile(os.path.join(root, target)):
                why = 'there is no such file'
            if why is not None:
                faults.append(f'{path} includes "{target}": {why}')
    if seen == 0:
        faults.append('not one #include "..." was read: the check itself is broken')
    return f'{seen} includes', faults


def check_sizes(root, paths, with_git):
    faults = []
    total = 0
    sources = 0
    for path in paths:
        size = os.path.getsize(os.path.join(root, path))
        total += size
        if size > FILE_BYTES_MAX:
            faults.append(f'{path} has {size} bytes; at most {FILE_BYTES_MAX} are allowed')
        if path.endswith(SOURCES + SCRIPTS):
            sources += 1
            with open(os.path.join(root, path), encoding='utf-8') as file:
                lines = sum(1 for _ in file)
            if lines > LINES_MAX:
                faults.append(f'{path} has {lines} lines; at most {LINES_MAX} are allowed')
        top = path.split('/')[0]
        if with_git and top not in TOP and not top.startswith('.'):
            faults.append(f'{path}: the top level holds only {", ".join(sorted(TOP))}')
    if with_git and total > TREE_BYTES_MAX:
        faults.append(f'the tracked tree has {total} bytes; at most {TREE_BYTES_MAX} are allowed')
    if sources == 0:
        faults.append('not one source file was read: the check itself is broken')
    return f'{len(paths)} files, {total} bytes', faults


def self_check():
    """The rules must refuse what they are for."""
    refused = [('sim/base/a.h', 'policies/b.h'), ('traces/a.c', 'policies/b.h'),
               ('policies/a.c', 'sim/model/b.h'), ('sim/cost/a.c', 'sim/engine/b.h'),
               ('sim/model/a.c', 'sim/scenario/b.h'), ('kernels/a.cu', 'calibrate/b.h'),
               ('calibrate/a.c', 'sim/cost/b.h'), ('calibrate/a.c', 'traces/b.h'),
               ('sim/engine/a.c', 'tests/b.h'), ('sim/engine/a.c', 'b.h'),
               ('policies/place/a.c', 'policies/dispatch/b.h'),
               ('policies/solve/a.c', 'policies/place/b.h'),
               ('policies/a.c', 'policies/solve/b.h'), ('sim/cost/a.c', 'policies/place/b.h'),
               ('sim/unlisted/a.c', 'sim/base/b.h'), ('calibrate/samples/a.c', 'kernels/b.h'),
               ('sim/cost/a.c', 'calibrate/b.h'), ('tests/engine_twin.c', 'sim/cost/b.h'),
               ('calibrate/unlisted/a.c', 'sim/base/b.h'),
               ('calibrate/timing/a.c', 'calibrate/expert/b.h'),
               ('calibrate/measure/a.c', 'calibrate/b.h')]
    allowed = [('sim/engine/a.c', 'sim/cost/b.h'), ('sim/main.c', 'sim/command/b.h'),
               ('policies/a.c', 'traces/b.h'), ('policies/place/a.c', 'policies/solve/b.h'),
               ('sim/engine/a.c', 'policies/solve/b.h'), ('calibrate/a.c', 'kernels/b.h'),
               ('tests/test_a.c', 'sim/engine/b.h'), ('sim/report/a.c', 'sim/report/b.h'),
               ('sim/cost/a.c', 'calibrate/samples/b.h'), ('calibrate/measure/a.c', 'kernels/b.h'),
               ('calibrate/a.c', 'calibrate/measure/b.h'),
               ('calibrate/measure/a.c', 'calibrate/bench/b.h')]
    for path, target in refused:
        assert fault(path, target) is not None, (path, target)
    for path, target in allowed:
        assert fault(path, target) is None, (path, target)


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ('includes', 'sizes'):
        sys.exit(__doc__)
    root = sys.argv[2]
    self_check()
    listed = tracked(root)
    paths = listed or walked(root)
    if sys.argv[1] == 'includes':
        what, faults = check_includes(root, paths)
    else:
        what, faults = check_sizes(root, paths, bool(listed))
    print(f'{what} read, {len(faults)} faults', *faults, sep='\n')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
