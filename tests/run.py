"""Runs all tests, three at a time: most of them wait for processes more than they compute.

The last line says how many browser tests were left out where no Chromium is found. `KM_TEST_PROCESSES=0` runs one
after the other in this process, for a debugger.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROCESSES = "3"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    required = os.environ.get("KM_REQUIRE_BROWSER") == "1"
    if browser is None and required:
        print("browser tests are required here, but no Chromium is on PATH", file=sys.stderr)
        return 1
    processes = os.environ.get("KM_TEST_PROCESSES", PROCESSES)
    arguments = [sys.executable, "-m", "pytest", "-q", "-n", processes, "--dist", "worksteal", *sys.argv[1:]]
    if browser is None:
        arguments += ["-m", "not browser"]
    root = Path(__file__).parent.parent
    code = subprocess.run(arguments, cwd=root, check=False).returncode
    if browser is None:
        print(f"left out: {_count_browser_tests(root)} browser tests (no Chromium found)")
    return code


def _count_browser_tests(root: Path) -> int:
    listing = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "browser"],
        cwd=root,
        check=False,
        capture_output=True,
        text=True,
    ).stdout
    return sum("::" in line for line in listing.splitlines())


if __name__ == "__main__":
    sys.exit(main())
