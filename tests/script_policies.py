#!/usr/bin/env python3
"""Every registered policy from outside: script_policies.py MOESIM TESTS_FOLDER.

`moesim policies NAME` says where it comes from, how it breaks ties, what it needs, and of each
parameter default, range, help and source; a default can be given, anything else that is no value is
refused with the range; a policy that needs what summed loads do not have is refused before it plans,
and leaves no file. Exit 0 when everything holds; says what does not."""
import json
import os
import subprocess
import sys
import tempfile

GIVEN = {"load", "batches", "seed", "previous"}  # what summed loads have, or that stands in for it
SERVING = "decided while serving"
complaints = []


def run(moesim, *arguments):
    done = subprocess.run([moesim, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def expect(holds, policy, what):
    if not holds:
        complaints.append(f"{policy}: {what}")


def said_of(name):
    """How a refusal for a need begins; hindsight's says that its loads are those to come."""
    return f"policy {name} plans on the loads" if name == "hindsight" else f"policy {name} needs"


def check_text(moesim, policy):
    name = policy["name"]
    code, text, _ = run(moesim, "policies", name)
    lines = [line.strip() for line in text.splitlines()]
    expect(code == 0, name, f"exit {code}")
    for field in ("summary", "source", "tie_rule"):
        expect(policy[field] and policy[field] in text, name, f"no {field}")
    for kind in policy["kinds"]:
        expect(kind in text, name, f"does not say that it decides {kind}")
    needs = [line for line in lines if line.startswith("needs ")]
    expect(needs and all(len(line) > len("needs  ") for line in needs), name, "no needs")
    if not policy["needs"]:
        expect("nothing but the shape" in text, name, "needs nothing and does not say so")
    for p in policy["parameters"]:
        expect(all(p.values()), name, f"{p['name']}: something is empty: {p}")
        head = f":{p['name']}={p['default']}"
        tail = f"{p['help']}; {p['allowed']}; default from: {p['source']}"
        expect((head, tail) in zip(lines, lines[1:]), name, f"no '{head}: {tail}'")


def check_values(moesim, policy, plan):
    """The place policy itself, any other behind eplb, which `plan` refuses only after reading it."""
    name = policy["name"]
    place = "place" in policy["kinds"]
    term = name if place else f"eplb+{policy['kinds'][0]}={name}"
    for p in policy["parameters"]:
        code, _, said = run(moesim, *plan, "--policy", f"{term}:{p['name']}={p['default']}")
        expect(code == 0 or (said_of(name) if place else SERVING) in said, name, f"default: {said}")
        code, out, said = run(moesim, *plan, "--policy", f"{term}:{p['name']}=no-value")
        expect(code == 2 and not out, name, f"{p['name']}=no-value: exit {code}")
        expect(p["name"] in said and p["allowed"].split()[-1] in said, name,
               f"{p['name']}=no-value: {said}")


def check_needs(moesim, policy, plan, folder):
    name = policy["name"]
    lacking = set(policy["needs"]) - GIVEN
    path = os.path.join(folder, name + ".json")
    code, _, said = run(moesim, *plan, "--policy", name, "-o", path)
    if lacking:
        expect(code == 2, name, f"needs {sorted(lacking)}, and exit {code}: {said}")
        expect(said_of(name) in said, name, f"refused without its need: {said}")
        expect(not os.path.exists(path), name, "was refused and left a file")
    else:
        expect(code == 0 and os.path.exists(path), name, f"exit {code}: {said}")


def main():
    moesim, tests = sys.argv[1:3]
    loads = os.path.join(tests, "oracles", "readme_loads.json")
    plan = ["plan", "--loads", loads, "--slots", "16", "--gpus", "8", "--nodes", "2"]
    policies = json.loads(run(moesim, "policies", "--format", "json")[1])["policies"]
    kinds = {kind for policy in policies for kind in policy["kinds"]}
    placing = [policy for policy in policies if "place" in policy["kinds"]]
    refused = [policy for policy in placing if set(policy["needs"]) - GIVEN]
    expect(kinds == {"place", "dispatch", "predict", "group"}, "registry", f"kinds {kinds}")
    expect(len(policies) >= 50, "registry", f"{len(policies)} policies")
    expect(5 <= len(refused) < len(placing), "registry", f"{len(refused)} lack something")
    with tempfile.TemporaryDirectory() as folder:
        for policy in policies:
            check_text(moesim, policy)
            check_values(moesim, policy, plan)
        for policy in placing:
            check_needs(moesim, policy, plan, folder)
    print("\n".join(complaints) or f"{len(policies)} policies describe themselves")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
