#!/usr/bin/env python3
"""script_measure.py PRETEND_MOECAL: whole runs of `moecal measure` and `moecal card` on pretend GPUs.

Everything planned is measured, judged right and stored; a killed run goes on where it was; a limit
is kept; what can't be measured or gone on with is refused before anything is.
"""
import os
import sqlite3
import subprocess
import sys
import tempfile
import time

SMALL = ['--sentinel', '64x64x2', '--sentinel-rows', '5', '--stream-mib', '1', '--product', '32',
         '--soak', '0', '--settle', '0']
PLAN = ['--models', 'group256,deepseek-v2-lite', '--ep', '128', '--shape', '64x128x4',
        '--shape', '64x80x3:relu', '--backend', 'own,lt-expert', '--dtype', 'bf16,fp8',
        '--rows-max', '2', '--context-max', '300', '--no-collectives', *SMALL]
KINDS = {'expert', 'permute', 'combine', 'gate', 'kv_gqa', 'kv_mla', 'stream', 'launch'}
PLAN += ['--kinds', ','.join(sorted(KINDS))]
faults = []


def require(good, text):
    if not good:
        faults.append(text)


def run(program, *arguments, gpus=1, verb='measure', **variables):
    environment = dict(os.environ, PRETEND_GPUS=str(gpus), **variables)
    return subprocess.run([program, verb, *arguments], capture_output=True, text=True, check=False,
                          env=environment)


def ask(path, sql):
    connection = sqlite3.connect(path)
    rows = connection.execute(sql).fetchall()
    connection.close()
    return rows


def check_whole(path, gpus):
    kinds = {kind for kind, in ask(path, 'SELECT kind FROM sample_series')}
    require(kinds == KINDS, f'{path}: kinds {kinds}')
    missing = ask(path, 'SELECT s.name, p.role, p.tokens FROM sample_point p JOIN sample_series s '
                  'ON s.id = p.series WHERE (SELECT count(DISTINCT gpu) FROM sample x WHERE '
                  f'x.point = p.id) <> {gpus}')
    require(not missing, f'{path}: points without samples: {missing[:3]}')
    wrong = ask(path, "SELECT s.name, x.error FROM sample x JOIN sample_point p ON p.id = x.point "
                "JOIN sample_series s ON s.id = p.series WHERE x.flags LIKE '%wrong%' OR "
                "x.error > 0.02 OR (x.n < 20 AND p.role <> 'burst') OR x.median_us <= 0")
    require(not wrong, f'{path}: wrong: {wrong[:3]}')
    roles = {role for role, in ask(path, 'SELECT DISTINCT role FROM sample_point')}
    require(roles >= {'anchor', 'heldout', 'sentinel', 'sustained', 'burst'}, f'{path}: roles {roles}')
    repeats = ask(path, 'SELECT count(*) FROM sample WHERE pass > 1')[0][0]
    require(repeats > 10, f'{path}: {repeats} repeats')
    names = {name for name, in ask(path, 'SELECT DISTINCT name FROM sample_ceiling')}
    require(names == {'read_bytes_s', 'write_bytes_s', 'copy_bytes_s', 'bf16_flop_s', 'fp8_flop_s', 'bf16_sustained_flop_s',
                      'fp8_sustained_flop_s',
                      'burst_mhz', 'sustained_mhz', 'sustained_w', 'graph_node_ns', 'launch_ns',
                      'empty_graph_us'}, f'{path}: ceilings {names}')
    require(ask(path, 'SELECT count(*) FROM sample_run WHERE wall_s > 0')[0][0] == 1,
            f'{path}: not one ended run')
    alike = ask(path, 'SELECT count(*) FROM (SELECT gpu, seq FROM sample GROUP BY gpu, seq HAVING '
                'count(*) > 1)')[0][0]
    require(alike == 0, f'{path}: {alike} samples of one place in the order')


def check_run(program, folder):
    path = os.path.join(folder, 'whole.cal.db')
    done = run(program, *PLAN, '-o', path)
    require(done.returncode == 0, f'whole: exit code {done.returncode}: {done.stderr[-600:]}')
    if done.returncode == 0:
        check_whole(path, 1)
        planned = run(program, *PLAN, '--plan-only').stdout
        require(f'{len(ask(path, "SELECT 1 FROM sample_series"))} series' in planned,
                f'plan: {planned[-300:]}')
    return path


def check_two(program, folder):
    path = os.path.join(folder, 'two.cal.db')
    arguments = [*SMALL, '--shape', '64x128x4', '--kinds', 'expert', '--rows-max', '4', '-o', path,
                 '--link-mib', '1', '--settle', '0.4']
    done = run(program, *arguments, gpus=2)
    require(done.returncode == 0, f'two GPUs: exit code {done.returncode}: {done.stderr[-600:]}')
    if done.returncode == 0:
        alone = ask(path, "SELECT count(DISTINCT p.id), count(DISTINCT x.gpu) FROM sample x JOIN "
                    "sample_point p ON p.id = x.point JOIN sample_series s ON s.id = p.series "
                    "WHERE s.kind = 'expert'")[0]
        require(alone[1] == 2 and alone[0] > 10, f'two GPUs: {alone}')
        odd = ask(path, "SELECT p.id FROM sample x JOIN sample_point p ON p.id = x.point WHERE "
                  "p.role = 'refine' AND p.series IN (SELECT id FROM sample_series WHERE kind = "
                  "'expert') GROUP BY p.id HAVING count(DISTINCT x.gpu) <> 2")
        require(not odd, f'two GPUs: refined apart: {odd}')
        states = ask(path, "SELECT count(*), sum(x.flags LIKE '%unsettled%'), max(p.role) FROM sample x "
                     "JOIN sample_point p ON p.id = x.point WHERE x.mhz > 0")[0]
        require(states[0] > 10 and states[1] < states[0] // 4, f'two GPUs: unsettled {states}')
        again = run(program, *arguments, gpus=1)
        require(again.returncode == 2 and 'other GPUs' in again.stderr,
                f'another set of GPUs: {again.returncode} {again.stderr[-300:]}')


def check_resume(program, folder, whole):
    path = os.path.join(folder, 'killed.cal.db')
    killed = run(program, *PLAN, '-o', path, '--die-after', '60')
    require(killed.returncode == 99, f'kill: exit code {killed.returncode}')
    time.sleep(0.1)
    kept = ask(path, 'SELECT count(*) FROM sample')[0][0]
    require(0 <= kept <= 60, f'kill: {kept} samples kept')
    other = run(program, *PLAN, '--seed', '9', '-o', path)
    require(other.returncode == 2 and 'another plan' in other.stderr,
            f'another plan: {other.returncode} {other.stderr[-300:]}')
    done = run(program, *PLAN, '-o', path)
    require(done.returncode == 0 and 'going on with run 1' in done.stderr,
            f'resume: {done.returncode} {done.stderr[-300:]}')
    check_whole(path, 1)
    sql = 'SELECT series, role, tokens, active, context, histogram FROM sample_point ORDER BY 1,2,3,4,5,6'
    require(ask(path, sql) == ask(whole, sql), 'resume: other points than in one go')
    require(ask(path, 'SELECT count(*) FROM sample_run')[0][0] == 1, 'resume: more than one run')
    first = ask(path, 'SELECT point, pass, count(*) FROM sample x JOIN sample_point p ON p.id = '
                "point WHERE role IN ('anchor', 'heldout', 'skew') AND flags NOT LIKE '%repeat%' "
                'GROUP BY 1, 2 HAVING count(*) > 1')
    require(not first, f'resume: measured twice: {first[:3]}')


def check_lost(program, folder):
    path = os.path.join(folder, 'lost.cal.db')
    arguments = [*SMALL, '--shape', '64x128x4', '--kinds', 'expert', '--rows-max', '4',
                 '--no-collectives', '-o', path]
    lost = run(program, *arguments, PRETEND_LOST='164500')
    require(lost.returncode == 1 and 'GPU 0' in lost.stderr and 'samples are kept' in lost.stderr,
            f'lost: {lost.returncode} {lost.stderr[-300:]}')
    kept = ask(path, 'SELECT count(*) FROM sample')[0][0]
    require(kept > 2 and f'{kept} samples are kept' in lost.stderr,
            f'lost: {kept} samples kept; {lost.stderr[-300:]}')
    require(ask(path, 'SELECT wall_s FROM sample_run') == [(None,)], 'lost: the run is called ended')
    done = run(program, *arguments)
    require(done.returncode == 0 and 'going on' in done.stderr,
            f'lost: {done.returncode} {done.stderr[-300:]}')


def check_limit(program, folder):
    path = os.path.join(folder, 'limit.cal.db')
    begin = time.monotonic()
    done = run(program, *PLAN, '--soak', '40', '--limit', '10', '-o', path)
    took = time.monotonic() - begin
    require(done.returncode == 0, f'limit: exit code {done.returncode}: {done.stderr[-300:]}')
    # The soak alone would take 40 s; a busy machine may stop a process for some of them.
    require(took < 30, f'limit: took {took:.1f} s')
    require('left out for the time limit' in done.stdout, f'limit: {done.stdout}')


def check_refusals(program, folder):
    path = os.path.join(folder, 'refused.cal.db')
    text = os.path.join(folder, 'text')
    with open(text, 'w', encoding='ascii') as file:
        file.write('no database, and long enough that SQLite looks at it. ' * 20)
    cases = [
        (['--models', 'gpt-9', '-o', path], 2, 'deepseek-v3'),
        (['--models', 'kimi-k2', '--backend', 'cutlass', '-o', path], 2, 'lt-expert'),
        (['--models', 'kimi-k2'], 2, '-o FILE'),
        (['--shape', '16384x65536x1024', *SMALL, '-o', path], 2, 'GiB are free'),
        (['--shape', '64x64x2', '--gpus', '5', '-o', path], 2, '--gpus'),
        (['--shape', '64x64x2', *SMALL, '-o', text], 2, 'not a readable calibration'),
        (['--shape', '64x64x2', *SMALL, '-o', '/nonesuch/x.cal.db'], 1, '/nonesuch/x.cal.db'),
    ]
    for arguments, code, words in cases:
        done = run(program, *arguments)
        require(done.returncode == code and words in done.stderr,
                f'{arguments}: {done.returncode} {done.stderr[-300:]}')
    require(not os.path.exists(path), 'a refused run left a file behind')


def check_desk(program):
    """A plan for GPUs that are not here."""
    for gpus in (0, 1):
        done = run(program, '--models', 'kimi-k2', '--ep', '1', '--plan-only', '--memory-gb', '20',
                   gpus=gpus)
        require(done.returncode == 0 and '20 GB' in done.stdout and
                'left out, too large' in done.stdout, f'desk: {done.returncode} {done.stderr[-300:]}')
    done = run(program, '--models', 'kimi-k2', '--ep', '1', '--plan-only', gpus=0)
    require(done.returncode == 0 and '150 GB' in done.stdout and 'left out' not in done.stdout,
            f'desk: {done.returncode} {done.stderr[-300:]}')


def check_card(program, folder):
    path = os.path.join(folder, 'cards.cal.db')
    for count in (1, 2):
        done = run(program, *SMALL, '-o', path, verb='card')
        require(done.returncode == 0 and done.stdout.count('\n') == 1 and 'sustained' in done.stdout,
                f'card: {done.returncode} {done.stdout} {done.stderr[-300:]}')
        runs = ask(path, "SELECT count(*) FROM sample_run WHERE command = 'card' AND wall_s > 0")
        require(runs[0][0] == count, f'card: {runs} runs after {count}')
    roles = {role for role, in ask(path, 'SELECT DISTINCT role FROM sample_point')}
    require(roles == {'sentinel', 'sustained'}, f'card: roles {roles}')


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        whole = check_run(program, folder)
        check_resume(program, folder, whole)
        check_lost(program, folder)
        check_two(program, folder)
        check_limit(program, folder)
        check_refusals(program, folder)
        check_card(program, folder)
        check_desk(program)
    print(*faults, sep='\n')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
