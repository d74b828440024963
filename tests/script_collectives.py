#!/usr/bin/env python3
"""script_collectives.py PRETEND_MOECAL: whole runs of `moecal collectives` on pretend GPUs.

Every operation must be planned, carried out with right results, and stored; what goes wrong must be
said with the operation, its size and its ranks.
"""
import os
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time

SMALL = ['--max-mib', '1', '--expert', '64x128x2', '--rows-few', '1', '--rows-many', '3']
KINDS = {'all_to_all', 'all_to_all_api', 'all_to_all_v', 'all_gather', 'reduce_scatter', 'all_reduce',
         'p2p', 'p2p_both', 'peer_copy', 'host_to_device', 'overlap'}
faults = []


def require(good, text):
    if not good:
        faults.append(text)


def run(program, gpus, *arguments, verb='collectives', **variables):
    environment = dict(os.environ, PRETEND_GPUS=str(gpus), **variables)
    return subprocess.run([program, verb, *arguments], capture_output=True, text=True, check=False,
                          env=environment)


def check_store(path, gpus):
    rows = sqlite3.connect(path)
    kinds = {kind for kind, in rows.execute('SELECT kind FROM sample_series')}
    require(kinds == (KINDS if gpus > 1 else {'host_to_device'}), f'{gpus} GPUs: kinds {kinds}')
    missing = rows.execute('SELECT count(*) FROM sample_point WHERE id NOT IN '
                           '(SELECT point FROM sample)').fetchone()[0]
    require(missing == 0, f'{gpus} GPUs: {missing} points without a sample')
    query = ('SELECT s.kind, s.name, s.ranks, p.role, p.bytes, p.bytes_per_peer, p.histogram, p.rows, '
             'count(DISTINCT x.gpu), max(x.error), min(x.n), min(x.median_us), max(x.pass) '
             'FROM sample x JOIN sample_point p ON p.id = x.point '
             'JOIN sample_series s ON s.id = p.series GROUP BY p.id')
    looked = set()
    repeated = 0
    count = 0
    for (kind, name, ranks, role, sent, piece, histogram, blob, seen, error, least, median,
         passes) in rows.execute(query):
        count += 1
        repeated += passes > 1
        where = f'{name} {piece:g} {role} {histogram}'
        wanted = {'peer_copy': 1, 'host_to_device': gpus}.get(kind, ranks)
        require(seen == wanted, f'{where}: {seen} GPUs have samples, not {wanted}')
        require(least >= 10 and median > 0, f'{where}: {least} calls of {median} us')
        require(piece % 16 == 0, f'{where}: no whole grains')
        if role == 'heldout':
            require(piece // 16 % 2 == 1, f'{where}: an even held-out size')
        if error == 0:
            looked.add(name)
        require(error in (0, -1), f'{where}: error {error}')
        factor = {'all_reduce': 2 * (ranks - 1), 'p2p': 1, 'p2p_both': 1, 'peer_copy': 1,
                  'host_to_device': 1}.get(kind, ranks - 1)
        if kind == 'all_to_all_v':
            matrix = struct.unpack(f'<{ranks * ranks}q', blob)
            outs = [sum(matrix[i * ranks:(i + 1) * ranks]) for i in range(ranks)]
            require(outs == [int(piece) * ranks] * ranks, f'{where}: rows sum to {outs}')
            require(sent == max(outs[i] - matrix[i * ranks + i] for i in range(ranks)), where)
        else:
            require(sent == piece * factor, f'{where}: {sent:g} bytes')
    names = {name for name, kind in rows.execute('SELECT name, kind FROM sample_series')
             if kind != 'overlap'}
    require(looked == names, f'{gpus} GPUs: results of {names - looked} were never looked at')
    require(0.15 < repeated / count < 0.45, f'{gpus} GPUs: {repeated} of {count} points repeated')
    if gpus > 1:
        # The pretend links change their protocol at 512 KiB: found without being told.
        refined = rows.execute("SELECT count(*) FROM sample_point WHERE role = 'refine' AND "
                               'bytes_per_peer > 524288').fetchone()[0]
        require(refined > 0, 'no refine points where the pretend link bends')
    return rows


def check_whole(program, folder, gpus):
    path = os.path.join(folder, f'{gpus}.cal.db')
    done = run(program, gpus, *SMALL, '-o', path)
    require(done.returncode == 0, f'{gpus} GPUs: exit code {done.returncode}: {done.stderr[-500:]}')
    rows = check_store(path, gpus)
    require(rows.execute('SELECT wall_s > 0, nccl FROM sample_run').fetchone() == (1, '2.28.9'),
            'the run is not ended')
    held = rows.execute("SELECT series, bytes_per_peer FROM sample_point WHERE role = 'heldout'")
    before = sorted(held.fetchall())
    if gpus == 2: # the same plan again, of the same seed; another one of another
        again = run(program, gpus, *SMALL, '-o', path, '--ops', 'p2p,all_gather')
        require(again.returncode == 0, f'second run: {again.stderr[-300:]}')
        held = rows.execute("SELECT series, bytes_per_peer FROM sample_point WHERE role = 'heldout'")
        runs = rows.execute('SELECT count(*) FROM sample_run').fetchone()[0]
        require(runs == 2 and set(before) <= set(held.fetchall()), 'a second run loses points')


def check_text(done, code, *texts):
    said = done.stdout + done.stderr
    require(done.returncode == code, f'exit code {done.returncode}, not {code}: {done.stderr[-300:]}')
    for text in texts:
        require(text in said, f'"{text}" is not in: {done.stderr[-300:]}')


def check_faults(program, folder):
    path = os.path.join(folder, 'fault.cal.db')
    check_text(run(program, 2, *SMALL, PRETEND_FAULT='wrong'), 1, 'all_gather of', 'on 2 ranks',
               'is wrong: at cell', 'of rank 1 (GPU 1) there is 3 where')
    check_text(run(program, 2, *SMALL, '--seed', '2', '-o', path, PRETEND_FAULT='error'), 1, 'all_reduce of',
               'on 2 ranks: pretend NCCL error: as it was told to')
    kept = sqlite3.connect(path).execute('SELECT count(*), max(wall_s) FROM sample '
                                         'JOIN sample_run').fetchone()
    require(kept[0] > 0 and kept[1] is None, f'an aborted run left {kept}')
    check_text(run(program, 2, *SMALL, PRETEND_FAULT='hang'), 1, 'reduce_scatter of',
               'on 2 ranks did not end within 0.5 s')
    check_text(run(program, 2, PRETEND_FAULT='init', *SMALL), 1, 'ncclCommInitRank')
    check_text(run(program, 2, *SMALL, NCCL_NVLS_ENABLE='1'), 2, 'NCCL_NVLS_ENABLE is 1; only 0')
    check_text(run(program, 2, '--gpus', '0,2'), 2, "--gpus: '2'")
    check_text(run(program, 2, '--gpus', '1,1'), 2, 'twice')
    check_text(run(program, 2, '--gpus', ''), 2, '--gpus')
    check_text(run(program, 2, '--ops', 'all_to_nil'), 2, "there is no 'all_to_nil'; allowed:")
    check_text(run(program, 2, '--max-mib', '16384'), 1, 'GiB free and exchanges')
    check_text(run(program, 2, '-o', '/nonesuch/x.cal.db'), 1, '/nonesuch')
    begin = time.monotonic()
    check_text(run(program, 2, *SMALL, '--limit', '0.4'), 0, 'since --limit did not allow more')
    require(time.monotonic() - begin < 3, 'the limit is not kept')
    check_text(run(program, 8, '--plan-only'), 0, 'all_to_all-8', 'p2p-7-6', 'about')
    chosen = run(program, 4, *SMALL, '--gpus', '3,1', '--ops', 'p2p')
    check_text(chosen, 0, 'p2p-3-1', 'p2p-1-3')


def check_resume(program, folder):
    """A run of `moecal measure` that broke off among the links goes on there."""
    path = os.path.join(folder, 'resumed.cal.db')
    arguments = ['--sentinel', '64x64x2', '--sentinel-rows', '5', '--stream-mib', '1', '--product',
                 '32', '--soak', '0', '--shape', '64x128x2', '--kinds', 'expert', '--rows-max', '2',
                 '--link-mib', '1', '-o', path]
    broken = run(program, 2, *arguments, verb='measure', PRETEND_FAULT='hang')
    check_text(broken, 1, 'reduce_scatter of')
    rows = sqlite3.connect(path)
    links = ("FROM sample x JOIN sample_point p ON p.id = x.point JOIN sample_series s "
             "ON s.id = p.series WHERE s.backend IN ('nccl', 'nccl-api', 'copy-engine') OR "
             "s.kind = 'overlap'")
    kept = set(rows.execute('SELECT x.id ' + links).fetchall())
    require(len(kept) > 4, f'a broken run kept {len(kept)} samples of links')
    done = run(program, 2, *arguments, verb='measure')
    require(done.returncode == 0, f'resume: exit code {done.returncode}: {done.stderr[-300:]}')
    now = set(rows.execute('SELECT x.id ' + links).fetchall())
    require(kept < now, 'resume: samples were lost')
    twice = rows.execute('SELECT s.name, p.bytes_per_peer, x.pass, count(*) ' + links +
                         ' GROUP BY x.point, x.gpu, x.pass HAVING count(*) > 1').fetchall()
    require(not twice, f'resume: measured twice: {twice[:3]}')
    require(rows.execute('SELECT count(*), min(wall_s > 0) FROM sample_run').fetchone() == (1, 1),
            'resume: not one ended run')
    require(rows.execute("SELECT count(*) FROM sample_point WHERE role <> 'refine' AND id NOT IN "
                         '(SELECT point FROM sample)').fetchone()[0] == 0,
            'resume: points without a sample')


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        for gpus in (1, 2, 3):
            check_whole(program, folder, gpus)
        check_faults(program, folder)
        check_resume(program, folder)
    for fault in faults[:20]:
        print(fault)
    sys.exit(1 if faults else 0)


main()
