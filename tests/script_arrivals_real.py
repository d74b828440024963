"""Recorded arrivals through whole runs: Azure's and Mooncake's files, ServeGen's profiles.

    script_arrivals_real.py MOESIM TESTS_FOLDER

What a run says of its arrivals (requests, tokens, when the last came, rate) is held to the files,
read here a second time; every request must be served. Exit code 77 where ../shared/data is absent.
"""

import csv
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path

REQUESTS = 400
FASTER = 100.0  # requests/s, far above what is recorded

SCENARIO = """name: arrivals
trace: {trace}
model: group256
cluster: {{nodes: 1}}
serving: {{running_per_gpu: 64, kv: pages}}
arrivals: {{kind: file, file: {store}, rate: {rate}, requests: {requests}}}
policies: [contiguous]
attribution: false
counted_layers: 1
seeds: 1
"""


def azure(path):
    """(s, prompt, output) by row."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            text, fraction = row["TIMESTAMP"].split(".")
            seconds = datetime.datetime.fromisoformat(text + "+00:00").timestamp()
            yield (seconds + float("0." + fraction), int(row["ContextTokens"]),
                   int(row["GeneratedTokens"]))


def mooncake(path):
    for line in path.read_text().splitlines():
        row = json.loads(line)
        yield row["timestamp"] / 1e3, row["input_length"], row["output_length"]


class Check:
    def __init__(self, program, tests, scratch):
        self.program = program
        self.trace = tests.resolve().parent / "results/quickstart/group256-sample.trace.db"
        self.scratch = Path(scratch)
        self.faults = 0

    def call(self, *words):
        done = subprocess.run([self.program, *map(str, words)], capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            sys.exit(f"{words}: exit {done.returncode}: {done.stderr}")
        return done.stdout

    def serve(self, store, rate):
        """What a run says of its arrivals, and its policy's figures."""
        scenario = self.scratch / "scenario.yaml"
        scenario.write_text(SCENARIO.format(trace=self.trace, store=store, rate=rate,
                                            requests=REQUESTS))
        report = json.loads(self.call("run", scenario, "--format", "json"))
        finished = sum(phase["requests"]
                       for phase in report["policies"][0]["runs"][0]["account"].values())
        return report["asked"]["arrivals"], finished

    def near(self, name, got, wanted, within):
        if abs(got - wanted) > within * abs(wanted):
            print(f"FAILED: {name}: {got}, but the file says {wanted}")
            self.faults += 1

    def recorded(self, name, inputs, rows):
        """rows None: what is drawn, of which the file says no times."""
        store = self.scratch / f"{name}.db"
        self.call("trace", "import", *inputs, "-o", store)
        for rate in (0, FASTER):
            come, finished = self.serve(store, rate)
            label = f"{name}, {rate or 'recorded'}/s"
            self.near(f"{label}: requests", come["requests"], REQUESTS, 0)
            self.near(f"{label}: served", finished, REQUESTS, 0)
            if rows is None:
                continue
            first = rows[:REQUESTS]
            recorded = len(rows) / (rows[-1][0] - rows[0][0])
            factor = recorded / rate if rate else 1.0
            self.near(f"{label}: recorded rate", come["recorded_rate"], recorded, 1e-3)
            self.near(f"{label}: last", come["last_s"], (first[-1][0] - first[0][0]) * factor, 1e-3)
            self.near(f"{label}: prompts", come["prompt_tokens"], sum(r[1] for r in first), 0)
            self.near(f"{label}: outputs", come["output_tokens"], sum(r[2] for r in first), 0)


def main():
    tests = Path(sys.argv[2])
    data = tests / "../../shared/data"
    if not data.is_dir():
        print(f"no {data}: not tested")
        return 77
    with tempfile.TemporaryDirectory() as scratch:
        check = Check(sys.argv[1], tests, scratch)
        for name in ("conv", "code"):
            path = data / f"arrivals_azure2023/AzureLLMInferenceTrace_{name}.csv"
            check.recorded(f"azure-{name}", [path], list(azure(path)))
        path = data / "arrivals_mooncake_fast25/conversation_trace.jsonl"
        check.recorded("mooncake", [path], list(mooncake(path)))
        chunks = sorted((data / "arrivals_servegen_r1").glob("chunk-*"))
        check.recorded("servegen", chunks, None)
    print("all as recorded" if check.faults == 0 else f"{check.faults} faults")
    return 1 if check.faults else 0


if __name__ == "__main__":
    sys.exit(main())
