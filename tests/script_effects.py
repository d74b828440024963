"""Published effects of placement policies, each shown by a small scenario: is the sign right?

    script_effects.py MOESIM STUDY_FOLDER [--markdown]

Every row below is one effect: what the source says, the runs that show it, and what must hold of
them. --markdown prints the table of results/studies/published-effects.md. Exit code 1 when a sign
is wrong. The figures are deterministic; only signs are checked, so that a change of the model that
keeps the effects keeps the test.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

READING = ("serving.step_tokens=4096", "serving.running_per_gpu=64", "arrivals.requests=3000",
           "arrivals.prompt_tokens=250", "arrivals.output_tokens=2")
DECODING = ("serving.running_per_gpu=8", "arrivals.requests=400",
            "arrivals.prompt_tokens=16", "arrivals.output_tokens=100")


class Runs:
    """Runs scenarios of one folder; an answer is figures by policy."""

    def __init__(self, program, folder, scratch):
        self.program = program
        self.folder = folder
        self.skewed = str(Path(scratch) / "skewed.trace.db")
        self.call("trace", "generate", "zipf", "--experts", "256", "--top-k", "8", "--groups", "8",
                  "--group-limit", "4", "--layers", "8", "--max-over-mean", "24", "--requests",
                  "200", "--prompt-tokens", "64", "--output-tokens", "16", "-o", self.skewed)

    def call(self, *words):
        done = subprocess.run([self.program, *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(words)}: exit {done.returncode}: {done.stderr}")
        return done.stdout

    def run(self, scenario, *settings):
        words = ["run", str(self.folder / f"{scenario}.yaml"), "--format", "json"]
        for setting in settings:
            words += ["--set", setting]
        answer = {}
        for policy in json.loads(self.call(*words))["policies"]:
            figures = {name: value["mean"] for name, value in policy["metrics"].items()}
            steps = policy["stragglers"]["steps"]
            exchange = [policy["time_ns"][part] for part in ("dispatch", "combine")]
            figures["exchange_ms"] = sum(sum(part.values()) for part in exchange) / steps / 1e6
            figures["kv_tokens"] = policy["plan"]["kv_tokens_per_gpu"]["mean"]
            answer[policy["name"]] = figures
        return answer


def change(after, before):
    return (after / before - 1.0) * 100.0


def rate_change(run, policy, against):
    return change(run[policy]["output_tokens_per_s"], against["output_tokens_per_s"])


def step_change(run, policy, against):
    return change(run[policy]["step_mean_ms"], run[against]["step_mean_ms"])


def craft(runs):
    """Rows of CRAFT: the fewest GPUs that hold the weights, and twice as many."""
    trace = f"trace={runs.skewed}"
    single = ("slots=256", "policies=lpt", "baseline=lpt")
    none = runs.run("craft", trace, *single)["lpt"]
    few = runs.run("craft", trace)
    kv = [change(few[p]["kv_tokens"], none["kv_tokens"]) for p in ("eplb", "craft:R=1")]
    eplb, craft1 = (rate_change(few, p, none) for p in ("eplb", "craft:R=1"))
    more = ("cluster.nodes=4", "arrivals.rate=180", "arrivals.requests=2000")
    none_more = runs.run("craft", trace, *more, *single)["lpt"]
    many = runs.run("craft", trace, *more)
    eplb_more = rate_change(many, "eplb", none_more)
    gain = rate_change(few, "craft:R=1", few["eplb"])
    yield ("EPLB against no copies, fewest GPUs", "goodput -46 % (6 nodes); KV -75 % (Kimi-K2)",
           f"output tokens/s {eplb:+.1f} %; KV {kv[0]:+.1f} %", eplb < -5)
    yield ("CRAFT against no copies, fewest GPUs", "goodput +14 % (6 nodes); KV -6 %",
           f"output tokens/s {craft1:+.1f} %; KV {kv[1]:+.1f} %", craft1 > 0)
    yield ("CRAFT against EPLB where memory is short", "goodput +14 % on average (8 nodes)",
           f"output tokens/s {gain:+.1f} %", gain > 5)
    yield ("EPLB against no copies, twice as many GPUs", "goodput +24 % (high skew)",
           f"output tokens/s {eplb_more:+.1f} %", eplb_more > 5)


def vibe(runs):
    name = "vibe:step_tokens=262144"
    reading = step_change(runs.run("vibe"), name, "lpt")
    decoding = step_change(runs.run("vibe", *DECODING), name, "lpt")
    yield ("ViBE against token balance, reading prompts",
           "MoE latency -27.9 %, TTFT P90 -35 % against EPLB; a 7 % spread alone bounds it at -3.4 %",
           f"step {reading:+.2f} %", reading < -0.2)
    yield ("ViBE against token balance, decoding", "no spread where memory binds (B200, H200)",
           f"step {decoding:+.2f} %", abs(decoding) < 0.2)


def metro(runs):
    decoding = runs.run("metro")
    reading = runs.run("metro", *READING)
    values = (step_change(reading, "eplb", "lpt"), step_change(decoding, "eplb", "lpt"),
              step_change(decoding, "eplb+dispatch=metro", "eplb"))
    yield ("1.5 times the slots (EPLB), reading prompts", "-17 %", f"step {values[0]:+.1f} %",
           values[0] < -1)
    yield ("1.5 times the slots (EPLB), decoding", "+14 %; throughput -10 %",
           f"step {values[1]:+.1f} %; output tokens/s "
           f"{rate_change(decoding, 'eplb', decoding['lpt']):+.1f} %", values[1] > 5)
    yield ("METRO's dispatch on those copies, decoding", "-1.9 to -21.8 %",
           f"step {values[2]:+.1f} %", values[2] < -1.9)


def padded(runs):
    name, base = "affinity+group=affinity", "lpt"
    exact = runs.run("padded", "serving.exchange=exact")
    even = runs.run("padded")
    far = change(exact[name]["exchange_bytes_far_per_token"],
                 exact[base]["exchange_bytes_far_per_token"])
    total = change(*(sum(exact[p][f"exchange_bytes_{link}_per_token"] for link in ("near", "far"))
                     for p in (name, base)))
    time = change(even[name]["exchange_ms"], even[base]["exchange_ms"])
    yield ("Activation-pattern groups: bytes, and time of a padded all-to-all",
           "message size -20 %, time -9 % (Maverick); DeepSeek-V3 volume -6 %",
           f"bytes {total:+.1f} % (between nodes {far:+.1f} %), time {time:+.1f} %",
           total < time < 0)


def degree(runs):
    ratios = []
    for nodes in (1, 2, 4, 8):
        run = runs.run("degree", f"cluster.nodes={nodes}", f"serving.passes={8 * nodes}")
        ratios.append(1.0 / run["contiguous"]["balancedness"])
    yield ("max / mean load against the GPUs of expert parallelism",
           "32, 64, 128, 256 GPUs: 1.63, 2.12, 3.05, 4.90 (LmSys, DeepSeek-R1)",
           "8, 16, 32, 64 GPUs: " + ", ".join(f"{r:.2f}" for r in ratios),
           ratios == sorted(ratios))


def stale(runs):
    ages = (10, 40, 160)
    ratios = [1.0 / runs.run("stale", f"online.every_steps={age}")["eplb"]["balancedness"]
              for age in ages]
    yield ("max / mean load against the age of EPLB's plan",
           "every 256, 1024, 4096 iterations: 1.29, 1.43, 1.83 (LmSys, 64 GPUs)",
           "every 10, 40, 160 steps: " + ", ".join(f"{r:.2f}" for r in ratios),
           ratios == sorted(ratios))


def prefetch(runs):
    rates = (1000, 64, 32, 16)
    gaps = [runs.run("prefetch", f"online.host_gb_s={rate}")["swift"]["itl_p50_ms"]
            for rate in rates]
    hidden = abs(change(gaps[1], gaps[0])) < 0.1
    yield ("Prefetch of experts during the step before",
           "hidden behind a batch (Predictive Prefetching), or a hiding window (PROBE)",
           f"ITL p50 at {', '.join(str(r) for r in rates)} GB/s: "
           + ", ".join(f"{gap:.1f}" for gap in gaps) + " ms",
           hidden and gaps[1] < gaps[2] < gaps[3])


EFFECTS = (("craft", craft), ("vibe", vibe), ("metro", metro), ("padded", padded),
           ("degree", degree), ("stale", stale), ("prefetch", prefetch))


def main():
    program, folder = sys.argv[1], Path(sys.argv[2])
    markdown = "--markdown" in sys.argv[3:]
    wrong = 0
    if markdown:
        print("| scenario | effect | published | here | sign |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        runs = Runs(program, folder, scratch)
        for name, rows in EFFECTS:
            for effect, published, here, holds in rows(runs):
                verdict = "same" if holds else "OTHER"
                wrong += not holds
                if markdown:
                    print(f"| [{name}](effects/{name}.yaml) | {effect} | {published} | {here} |"
                          f" {verdict} |", flush=True)
                else:
                    print(f"{name}: {effect}: {here}: {verdict}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
