"""Turns the plans that other programs made for one .npz into what test_eplb_programs.c reads.

    python3 convert_programs.py dsv3_zipf0.8_int.npz eplb_programs_zipf08_int.json

Keys read: trtllm_cpp, vllm_numpy_MODE, sglang_vec_MODE (MODE hier and global), each phy2log
int16 [layer][slot]. The loads are those of eplb_zipf08_*.json. Nothing in the build runs it.
"""
import json
import struct
import sys
import zipfile


def plan(archive, name):
    """[layer][slot] of one member, a little-endian int16 matrix."""
    data = archive.read(name + '.npy')
    header = struct.unpack('<H', data[8:10])[0]
    text = data[10:10 + header].decode('ascii')
    assert "'<i2'" in text and '(58, 288)' in text, text
    values = struct.unpack('<%dh' % (58 * 288), data[10 + header:])
    return [list(values[layer * 288:(layer + 1) * 288]) for layer in range(58)]


with zipfile.ZipFile(sys.argv[1]) as source:
    plans = {name: plan(source, name) for name in (
        'trtllm_cpp', 'vllm_numpy_hier', 'vllm_numpy_global', 'sglang_vec_hier',
        'sglang_vec_global')}
with open(sys.argv[2], 'w', encoding='ascii') as out:
    json.dump(plans, out, separators=(',', ':'))
    out.write('\n')
