"""Makes the tables of overlap.md: python3 results/studies/overlap.py build/moesim"""

import sys

from study_page import Runs, fill, metric, table

# What arithmetic and an exchange do to each other while both run (factors of time).
INTERFERENCE = {
    "none": ("serving.overlap_compute=1", "serving.overlap_comm=1"),
    "20 SMs": ("serving.overlap_compute=1.18", "serving.overlap_comm=1"),
    "measured": (),
}
HALVES = ("serving.overlap=two_batch", "serving.shared_expert=serial")
DECODE = (8, 16, 32, 64, 128, 256, 512)
PREFILL = (128, 256, 512, 1024, 2048, 4096, 8192)
PLACEMENTS = (("contiguous", 256), ("eplb", 256), ("eplb", 288), ("eplb", 320), ("eplb", 384),
              ("eplb+dispatch=lp", 320), ("eplb+dispatch=metro", 384))


def decode(size, gpus=32):
    """Every GPU decodes `size` requests in every step."""
    return (f"serving.running_per_gpu={size}", f"arrivals.requests={3 * gpus * size}")


def prefill(size, gpus=32):
    """Every GPU reads `size` tokens of prompts in every step."""
    prompt = min(size, 512)
    requests = 10 * gpus * max(1, size // prompt)
    return (f"serving.step_tokens={size}", f"arrivals.prompt_tokens={prompt}",
            "arrivals.output_tokens=1", f"arrivals.requests={max(400, requests)}")


def of(name, slots):
    return (f"policies={name}", f"baseline={name}", f"slots={slots}")


def settings(batch, placement, interference):
    if interference is None:
        return batch + placement
    return batch + placement + HALVES + INTERFERENCE[interference]


class Study:
    def __init__(self, program):
        self.runs = Runs(program, "overlap.yaml")

    def policy(self, batch, placement, interference):
        return next(iter(self.runs.policies(settings(batch, placement, interference)).values()))

    def step(self, batch, placement, interference):
        return metric(self.policy(batch, placement, interference), "step_mean_ms")

    def gain(self, batch, placement, interference):
        """What halves add to throughput, against the same batches in one piece."""
        one = self.step(batch, placement, None)
        return f"{(one / self.step(batch, placement, interference) - 1.0) * 100.0:+.1f} %"

    def hidden(self, batch, placement, interference):
        halves = self.policy(batch, placement, interference)["runs"][0]["halves"]
        return f"{halves['hidden_ns'] / halves['exchange_ns'] * 100.0:.0f} %"

    def parts(self, batch, placement):
        """Share of the exchange in a step in one piece."""
        policy = self.policy(batch, placement, None)
        sums = {part: sum(times.values()) for part, times in policy["time_ns"].items()}
        share = (sums["dispatch"] + sums["combine"]) / sum(sums.values())
        return f"{share * 100.0:.0f} %"

    def sizes(self, kind, sizes):
        placement = of("eplb", 288)
        rows = []
        for size in sizes:
            batch = kind(size)
            row = [str(size), f"{self.step(batch, placement, None):,.1f}",
                   self.parts(batch, placement)]
            for name in INTERFERENCE:
                row += [self.gain(batch, placement, name), self.hidden(batch, placement, name)]
            rows.append(row)
        return table(["tokens per GPU", "step, ms", "exchange in it",
                      "gain, no interference", "hidden", "20 SMs set apart", "hidden",
                      "as measured", "hidden"], rows)

    def placements(self):
        rows = []
        first = {}
        for name, slots in PLACEMENTS:
            row = [name, str(slots)]
            for batch in (decode(256), prefill(2048)):
                for interference in (None, "20 SMs"):
                    step = self.step(batch, of(name, slots), interference)
                    first.setdefault((batch, interference), step)
                    change = step / first[batch, interference] - 1.0
                    row.append(f"{step:,.1f} ({change * 100.0:+.1f} %)" if rows else f"{step:,.1f}")
                row.append(self.hidden(batch, of(name, slots), "20 SMs"))
            rows.append(row)
        return table(["policy", "slots", "decode 256: one piece, ms", "halves, ms", "hidden",
                      "prefill 2,048: one piece, ms", "halves, ms", "hidden"], rows)

    def node(self):
        rows = []
        for label, batch in (("decode 128", decode(128, 8)), ("decode 512", decode(512, 8)),
                             ("prefill 2,048", prefill(2048, 8)),
                             ("prefill 8,192", prefill(8192, 8))):
            batch += ("cluster.nodes=1",)
            placement = of("eplb", 264)
            rows.append([label, f"{self.step(batch, placement, None):,.1f}",
                         self.parts(batch, placement)] +
                        [self.gain(batch, placement, name) for name in INTERFERENCE])
        return table(["batch", "step, ms", "exchange in it", "gain, no interference",
                      "20 SMs set apart", "as measured"], rows)

    def make_all(self):
        """All runs at once, so that all processors have work."""
        wanted = []
        for kind, sizes in ((decode, DECODE), (prefill, PREFILL)):
            wanted += [settings(kind(size), of("eplb", 288), name)
                       for size in sizes for name in (None, *INTERFERENCE)]
        wanted += [settings(batch, of(*placement), name) for placement in PLACEMENTS
                   for batch in (decode(256), prefill(2048)) for name in (None, "20 SMs")]
        self.runs.make(wanted[::-1])


def main():
    study = Study(sys.argv[1])
    study.make_all()
    fill("overlap.md", {
        "decode": study.sizes(decode, DECODE),
        "prefill": study.sizes(prefill, PREFILL),
        "placements": study.placements(),
        "node": study.node(),
    })


main()
