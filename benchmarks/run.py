"""Runs every benchmark of this folder, one after the other, each in a process of its own.

Each `bench_*.py` prints a table and writes JSON to `benchmarks/results/`. Figures are ratios within one run:
compare nothing across machines. Name some to run only those: `python benchmarks/run.py limit shipper`; `gateway`
names all of the gateway's, `pipeline` those of an event's way, `billing` those of invoices.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
GROUPS = {
    "gateway": [
        "pluginserver",
        "pdk_calls",
        "access_event",
        "meter_event",
        "limit",
        "coalescing",
        "million_keys",
    ],
    "pipeline": ["shipper", "collector", "ingest", "pipeline", "freshness", "chart", "pipeline_memory"],
    "billing": ["closing", "plan_change"],
}


def main(wanted: list[str]) -> int:
    scripts = sorted(FOLDER.glob("bench_*.py"))
    names = {script.stem.removeprefix("bench_"): script for script in scripts}
    wanted = [name for word in wanted for name in GROUPS.get(word, [word])]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        print(
            f"no such benchmark: {', '.join(unknown)} (there are: {', '.join([*names, *GROUPS])})", file=sys.stderr
        )
        return 2
    (FOLDER / "results").mkdir(exist_ok=True)
    failed = []
    for name in wanted or names:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, names[name]], cwd=FOLDER.parent, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
