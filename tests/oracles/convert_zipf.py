"""Turns the EPLB vectors of one .npz into the JSON that test_eplb_oracles.c reads.

    python3 convert_zipf.py dsv3_zipf0.8_int.npz eplb_zipf08_int.json

Keys read: weight [layer][expert]; deepseek_stable_MODE [layer][slot] (phy2log),
l2p_MODE [layer][expert][copy] (log2phy, -1 padded), cnt_MODE [layer][expert] (logcnt)
for MODE hier and global. Needs numpy; nothing in the build runs it.
"""
import json
import sys

import numpy

source = numpy.load(sys.argv[1])
weight = source["weight"]


def number(value):
    """The shortest decimal that reads back as the same number."""
    return int(value) if weight.dtype.kind == "i" else float(str(value))


cases = []
for mode, name in (("hier", "hierarchical"), ("global", "global")):
    cases.append({
        "name": name,
        "num_replicas": 288,
        "num_groups": 8 if mode == "hier" else 1,
        "num_nodes": 4,
        "num_gpus": 32,
        "phy2log": source["deepseek_stable_" + mode].tolist(),
        "log2phy": [[[slot for slot in copies if slot >= 0] for copies in row]
                    for row in source["l2p_" + mode].tolist()],
        "logcnt": source["cnt_" + mode].tolist(),
    })
with open(sys.argv[2], "w", encoding="ascii") as out:
    json.dump({"weight": [[number(value) for value in row] for row in weight], "cases": cases},
              out, separators=(",", ":"))
    out.write("\n")
