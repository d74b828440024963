#!/usr/bin/env python3
"""script_bench_kernels.py PRETEND_MOECAL: a whole run of `moecal bench-kernels` on the pretend GPU.

Every backend that is not refused must be right, in every spread, dtype and activation; the files
must be whole and say the same.
"""
import csv
import json
import os
import subprocess
import sys
import tempfile

SHAPES = ['64x128x3', '128x64x2:relu', '64x80x2:gelu']
TOKENS = [1, 5]
SPREADS = ['uniform', 'hot8x', 'zipf1.2', 'half-empty']
BACKENDS = {'bf16': ['own', 'lt-expert', 'lt-padded', 'blas-grouped'],
            'fp8': ['own', 'lt-fp8-row', 'lt-fp8-block']}
# What the library and the pretend GPU refuse: scales by block for fewer than 4 rows of an expert.
MAY_REFUSE = {'lt-fp8-block'}


def run(program, *arguments):
    return subprocess.run([program, 'bench-kernels', '--stream-mib', '1', '--product', '32',
                           '--route', '40x128x16x4', '--context', '2x130', *arguments],
                          capture_output=True, text=True, check=False)


def check_points(points):
    faults = []
    for point in points:
        names = [cell['backend'] for cell in point['backends']]
        if names != BACKENDS[point['dtype']]:
            faults.append(f'backends {names} in {point["dtype"]}')
        for cell in point['backends']:
            limit = 1e-2 if point['dtype'] == 'bf16' else 3e-2
            if 'refusal' in cell:
                if cell['backend'] not in MAY_REFUSE or cell['refusal'].startswith('WRONG'):
                    faults.append(f'{cell["backend"]}: {cell["refusal"]} at {point["spread"]} '
                                  f'{point["rows_per_expert"]}')
            elif not cell['relative_error'] < limit or cell['count'] < 20:
                faults.append(f'{cell["backend"]}: error {cell["relative_error"]}, '
                              f'{cell["count"]} repeats')
    return faults


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ('x.csv', 'x.json')]
        arguments = ['--tokens', ','.join(map(str, TOKENS)), '--csv', files[0], '--json', files[1]]
        for shape in SHAPES:
            arguments += ['--shape', shape]
        done = run(program, *arguments)
        if done.returncode != 0:
            sys.exit(f'exit code {done.returncode}: {done.stderr[-2000:]}')
        with open(files[0], newline='', encoding='utf-8') as file:
            lines = list(csv.DictReader(file))
        with open(files[1], encoding='utf-8') as file:
            record = json.load(file)
        faults = check_points(record['points'])
        points = [point for point in record['points'] if point['role'] == 'point']
        if len(points) != len(SHAPES) * len(TOKENS) * len(SPREADS) * len(BACKENDS):
            faults.append(f'{len(points)} points')
        cells = sum(len(point['backends']) for point in record['points'])
        if len(lines) != cells:
            faults.append(f'{len(lines)} lines in the CSV, {cells} cells in the JSON')
        if {move['family'] for move in record['moves']} < {'read', 'write', 'copy', 'combine'}:
            faults.append('moves are missing')
        again = run(program, '--json', files[1], '--suite', 'around')
        if again.returncode != 2 or files[1] not in again.stderr:
            faults.append(f'a file that exists was not refused: {again.stderr}')
    print(*faults, sep='\n')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
