"""Processor time and memory of a run against requests, layers, experts and GPUs.

    bench_growth.py MOESIM [TRACE]      Markdown on stdout

One policy, one seed, attribution off, routes of the skewed generator. In each row one quantity grows
by 2, 4, 8; the exponent is the slope of log time over log quantity across the row (1: linear).
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

BASE = {"requests": 2000, "layers": 8, "experts": 64, "gpus": 32}
CARD = """name: growth
source: "made up"
layers: {layers}
moe_layers: {layers}
hidden: 1024
vocabulary: 32000
tied_embeddings: true
experts: {{count: {experts}, top_k: 4, size: 512, shared_size: 0, gated: true, bytes_per_weight: 1}}
dense: {{size: 0, bytes_per_weight: 1}}
attention: {{kind: mha, heads: 8, kv_heads: 8, head_size: 128, kv_layers: {layers}, kv_bytes_per_value: 2}}
"""
SCENARIO = """name: growth
trace: trace.db
model: card.yaml
cluster: {{nodes: {nodes}, gpus_per_node: 8}}
serving: {{running_per_gpu: 32, kv: pages}}
arrivals: {{kind: poisson, rate: 1000, requests: {requests}, lengths: lognormal, prompt_tokens: 200,
  prompt_cv: 0, output_tokens: 20, output_cv: 0}}
policies: [eplb]
baseline: eplb
attribution: false
seeds: 1
"""


def measure(program, point):
    """CPU seconds, peak MiB and steps of one run."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "card.yaml").write_text(CARD.format(**point))
        (place / "scenario.yaml").write_text(
            SCENARIO.format(nodes=point["gpus"] // 8, **point))
        subprocess.run([program, "trace", "generate", "zipf", "--experts", str(point["experts"]),
                        "--top-k", "4", "--layers", "8", "--max-over-mean", "4", "--requests", "200",
                        "--prompt-tokens", "64", "--output-tokens", "16", "-o",
                        str(place / "trace.db")], check=True, capture_output=True)
        words = [program, "run", str(place / "scenario.yaml"), "--format", "json", "--threads", "1"]
        with (place / "out").open("w") as out:
            child = subprocess.Popen(words, stdout=out, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(child.pid, 0)
        if status != 0:
            sys.exit(f"{point}: exit status {status}")
        steps = json.loads((place / "out").read_text())["policies"][0]["stragglers"]["steps"]
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, steps


def main():
    program = sys.argv[1]
    print("| what grows | its values | CPU s | exponent | peak MiB | scored steps |\n|---|---|---|---|---|---|")
    for quantity, first in BASE.items():
        values = [first * factor for factor in (1, 2, 4, 8)]
        rows = [measure(program, BASE | {quantity: value}) for value in values]
        slope = math.log(rows[-1][0] / rows[0][0]) / math.log(values[-1] / values[0])
        print(f"| {quantity} | {', '.join(map(str, values))} | "
              f"{', '.join(f'{r[0]:.2f}' for r in rows)} | {slope:.2f} | "
              f"{', '.join(f'{r[1]:.0f}' for r in rows)} | "
              f"{', '.join(str(r[2]) for r in rows)} |", flush=True)


if __name__ == "__main__":
    main()
