"""What the pages of results/studies that are made by a script share: runs of moesim, and tables.

A table stands in its page between `<!-- NAME -->` and `<!-- end of NAME -->`; everything else of
the page is written by hand.
"""

import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
STUDENT_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # two-sided 95 %, by samples


class Runs:
    """Runs of one scenario, each made once; as many at a time as there are processors."""

    def __init__(self, program, scenario):
        self.program = program
        self.scenario = str(FOLDER / scenario)
        self.answers = {}

    def make(self, settings_of_runs):
        wanted = [s for s in dict.fromkeys(settings_of_runs) if s not in self.answers]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            self.answers.update(zip(wanted, pool.map(self._run, wanted)))

    def policies(self, settings):
        """The report's policies by name; none when so much came that nothing could be scored."""
        self.make([settings])
        return {p["name"]: p for p in self.answers[settings]["policies"]}

    def _run(self, settings):
        words = [self.program, "run", self.scenario, "--format", "json", "--threads", "1"]
        for setting in settings:
            words += ["--set", setting]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if "no step is left to score" in done.stderr:
            return {"policies": []}
        if done.returncode != 0:
            sys.exit(f"{' '.join(words)}: exit {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)


def metric(policy, name):
    return policy["metrics"][name]["mean"]


def seeds(policy, name):
    return policy["metrics"][name]["seeds"]


def with_half(values, digits):
    """Mean and half width of its 95 % interval."""
    half = STUDENT_T[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):,.{digits}f} ± {half:.{digits}f}"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fill(page, tables):
    """Puts tables {name: text} into their places in the page."""
    path = FOLDER / page
    text = path.read_text(encoding="utf-8")
    for name, body in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            sys.exit(f"{path}: table {name} has no single place between {begin} and {end}")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{body}\n{end}{rest.split(end)[1]}"
    path.write_text(text, encoding="utf-8")
