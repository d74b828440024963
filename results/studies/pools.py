"""Makes the tables of pools.md: python3 results/studies/pools.py build/moesim"""

import os
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor

from study_page import Runs, fill, metric, seeds, table, with_half

WORKLOADS = {"code": (2000, 28), "chat": (1150, 210), "writing": (300, 300)}  # prompt, answer
SECONDS = 30  # of arrivals in each run
FEWEST = 300  # requests
TTFT_MS = 2000.0
TPOT_MS = (30.0, 50.0, 100.0)
STEP = 1.25  # from one rate of the search to the next
RATES = tuple(round(4.0 * STEP**k, 1) for k in range(20))


def together(tokens, ranks=1):
    """All GPUs do both; `ranks` of them share an attention, and tokens are of those together."""
    return (f"serving.attention_ranks={ranks}", "pools.prefill_gpus=0", "pools.prefill_slots=0", "pools.decode_slots=0",
            "pools.prefill_tokens=0", "slots=256", f"serving.step_tokens={tokens}")


def apart(gpus, tokens, prefill_slots=256, decode_slots=256, ranks=1):
    def whole(slots, pool):
        return -(-slots // pool) * pool  # as many on every GPU

    return (f"serving.attention_ranks={ranks}",
            f"pools.prefill_gpus={gpus}", f"pools.prefill_tokens={tokens}",
            f"pools.prefill_slots={whole(prefill_slots, gpus)}",
            f"pools.decode_slots={whole(decode_slots, 32 - gpus)}")


LAYOUTS = {
    "together, chunks of 32": together(32),
    "together, chunks of 128": together(128),
    "together, chunks of 512": together(512),
    "together by 8, chunks of 512": together(512, 8),
    "together by 8, chunks of 1,024": together(1024, 8),
    "together by 8, chunks of 2,048": together(2048, 8),
    "8 + 24 GPUs": apart(8, 8192),
    "16 + 16 GPUs": apart(16, 2048),
    "24 + 8 GPUs": apart(24, 2048),
    "16 + 16 GPUs by 4": apart(16, 8192, ranks=4),
}
# Slots of the prefill and of the decode pool; the first row is what the others are compared to.
PLACEMENTS = (("contiguous", 256, 256), ("lpt", 256, 256), ("eplb", 256, 256),
              ("eplb", 272, 272), ("eplb", 320, 256), ("eplb", 256, 320), ("eplb", 320, 320),
              ("eplb", 384, 384))


def load(workload, rate):
    prompt, answer = WORKLOADS[workload]
    return (f"arrivals.prompt_tokens={prompt}", f"arrivals.output_tokens={answer}",
            f"arrivals.rate={rate:g}", f"arrivals.requests={max(FEWEST, round(SECONDS * rate))}")


def only(policies):
    return next(iter(policies.values()))


def prefill_mean(policy, name):
    return statistics.fmean(r["pools"]["prefill"]["figures"][name] for r in policy["runs"])


class Study:
    def __init__(self, program):
        self.runs = Runs(program, "pools.yaml")

    def meets(self, layout, workload, rate, tpot_ms):
        policies = self.runs.policies(LAYOUTS[layout] + load(workload, rate))
        if not policies:
            return False
        policy = only(policies)
        return (metric(policy, "ttft_p99_ms") <= TTFT_MS and not metric(policy, "saturated") and
                metric(policy, "tpot_p99_ms") <= tpot_ms)

    def largest_rate(self, layout, workload, tpot_ms):
        """By bisection over RATES; a rate that meets the SLO above one that does not is missed."""
        low, high = -1, len(RATES)
        while high - low > 1:
            middle = (low + high) // 2
            if self.meets(layout, workload, RATES[middle], tpot_ms):
                low = middle
            else:
                high = middle
        if low < 0:
            return f"below {RATES[0]:g}"
        return f"{RATES[low]:g}" if low < len(RATES) - 1 else f"from {RATES[low]:g}"

    def goodput_row(self, place):
        workload, layout = place
        prompt, answer = WORKLOADS[workload]
        return ([f"{workload}, {prompt:,} / {answer}", layout] +
                [self.largest_rate(layout, workload, tpot_ms) for tpot_ms in TPOT_MS])

    def goodput(self):
        places = [(w, layout) for w in WORKLOADS for layout in LAYOUTS]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            rows = list(pool.map(self.goodput_row, places))
        return table(["workload, tokens", "GPUs"] +
                     [f"TPOT up to {tpot_ms:g} ms" for tpot_ms in TPOT_MS], rows)

    def at_one_rate(self):
        rows = []
        chosen = {name: sets + load("chat", 40) for name, sets in LAYOUTS.items()}
        chosen["16 + 16, 8,192 tokens a step"] = apart(16, 8192) + load("chat", 40)
        self.runs.make(chosen.values())
        for name, settings in chosen.items():
            policy = only(self.runs.policies(settings))
            apart_from = policy["runs"][0]["pools"]
            row = [name] + [f"{metric(policy, m):,.0f}" for m in ("ttft_p50_ms", "ttft_p99_ms")]
            row += [f"{metric(policy, m):.1f}" for m in ("tpot_p50_ms", "tpot_p99_ms")]
            if apart_from:
                row += [f"{prefill_mean(policy, 'step_mean_ms'):.0f}",
                        f"{prefill_mean(policy, 'idle_share') * 100.0:.0f} %",
                        f"{prefill_mean(policy, 'balancedness'):.3f}"]
            else:
                row += ["", "", ""]
            row += [f"{metric(policy, 'step_mean_ms'):.1f}",
                    f"{metric(policy, 'idle_share') * 100.0:.0f} %",
                    f"{metric(policy, 'balancedness'):.3f}"]
            rows.append(row)
        return table(["GPUs", "TTFT p50, ms", "p99", "TPOT p50, ms", "p99", "prefill step, ms",
                      "waits", "balance", "decode (all) step, ms", "waits", "balance"], rows)

    def placement_settings(self, placement):
        name, prefill_slots, decode_slots = placement
        return (f"policies={name}", f"baseline={name}", "seeds=5",
                *apart(16, 2048, prefill_slots, decode_slots))

    def placements(self):
        self.runs.make([self.placement_settings(p) for p in PLACEMENTS])
        policies = [only(self.runs.policies(self.placement_settings(p))) for p in PLACEMENTS]
        rows = []
        for placement, policy in zip(PLACEMENTS, policies):
            row = [placement[0], f"{placement[1]} + {placement[2]}",
                   f"{prefill_mean(policy, 'balancedness'):.3f}",
                   f"{prefill_mean(policy, 'step_mean_ms'):.0f}"]
            row += [self.change(policy, policies[0], m) for m in ("ttft_p50_ms", "ttft_p99_ms")]
            row += [f"{metric(policy, 'balancedness'):.3f}",
                    f"{metric(policy, 'step_mean_ms'):.2f}"]
            row += [self.change(policy, policies[0], m) for m in ("tpot_p50_ms", "tpot_p99_ms")]
            rows.append(row)
        return table(["policy", "slots", "prefill balance", "step, ms", "TTFT p50", "p99",
                      "decode balance", "step, ms", "TPOT p50", "p99"], rows)

    @staticmethod
    def change(policy, first, name):
        """In per cent of the first policy's, paired by seed; of the first itself its ms."""
        if policy is first:
            return f"{with_half(seeds(policy, name), 1)} ms"
        ratios = [(own / base - 1.0) * 100.0
                  for own, base in zip(seeds(policy, name), seeds(first, name))]
        return f"{with_half(ratios, 1)} %"

    def handover(self):
        rows = []
        cases = [(label, prompt, rate, transfer)
                 for label, prompt, rate in (("chat", 1150, 60), ("documents", 8000, 1))
                 for transfer in ("after", "layered")]

        def settings(prompt, rate, transfer):
            return (f"arrivals.prompt_tokens={prompt}", f"arrivals.rate={rate}",
                    f"arrivals.requests={max(FEWEST, SECONDS * rate)}",
                    f"pools.transfer={transfer}")

        self.runs.make([settings(*case[1:]) for case in cases])
        for label, prompt, rate, transfer in cases:
            policy = only(self.runs.policies(settings(prompt, rate, transfer)))
            run = policy["runs"][0]
            sent = run["pools"]["handover"]
            count = sent["count"]
            spans = run["account"].values()
            seconds = sum(span["time_ns"] for span in spans) * 1e-9
            busy = (sent["send_ns"] + sent["beside_ns"]) * 1e-9 / (16 * seconds)
            rows.append([f"{label}, {prompt:,} tokens, {rate}/s", transfer,
                         f"{sent['bytes'] / count / 1e6:.1f}",
                         f"{sent['place_ns'] / count / 1e6:.1f}",
                         f"{sent['queue_ns'] / count / 1e6:.3f}",
                         f"{sent['send_ns'] / count / 1e6:.2f}",
                         f"{metric(policy, 'ttft_p50_ms'):.1f}", f"{busy * 100.0:.2f} %"])
        return table(["workload", "transfer", "MB each", "waits for a seat, ms", "for links",
                      "sends after the prompt", "TTFT p50, ms", "a link is busy"], rows)


def main():
    study = Study(sys.argv[1])
    fill("pools.md", {
        "goodput": study.goodput(),
        "one rate": study.at_one_rate(),
        "placements": study.placements(),
        "hand-over": study.handover(),
    })


main()
