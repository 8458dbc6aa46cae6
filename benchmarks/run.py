"""Runs every benchmark of this folder, one after the other, each in a process of its own.

Each `bench_*.py` prints a table and writes JSON to `benchmarks/results/`. Figures are ratios within one run:
compare nothing across machines. Name some to run only those: `python benchmarks/run.py limit shipper`.
"""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def main(wanted: list[str]) -> int:
    scripts = sorted(FOLDER.glob("bench_*.py"))
    names = {script.stem.removeprefix("bench_"): script for script in scripts}
    unknown = [name for name in wanted if name not in names]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)} (there are: {', '.join(names)})", file=sys.stderr)
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
