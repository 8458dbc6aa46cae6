"""Tells the stories on Stripe itself: `make test-stripe`, with a key of a sandbox in `KM_TEST_STRIPE_KEY`.

Arguments go to pytest, such as `-k TestUpgrade`. One story after the other: they share the account's pace.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from tests.control_plane.stripe_scenarios.access import KEY, WrongAccessError, access_of  # noqa: E402 - see above

STORIES = "tests/control_plane/stripe_scenarios/test_scenarios.py"
BROWSERS = ("chromium", "google-chrome")


def main(arguments: list[str]) -> int:
    try:
        access = access_of(os.environ)
    except WrongAccessError as wrong:
        print(wrong, file=sys.stderr)
        return 2
    if access is None:
        print(f"{KEY} is not set: give a key of a sandbox (sk_test_... or rk_test_...).", file=sys.stderr)
        return 2
    if access.is_stripe and not any(map(shutil.which, BROWSERS)):
        print("Stripe's checkout page is filled in by Chromium, and none is on PATH.", file=sys.stderr)
        return 2
    print(f"each story may take {access.minutes:g} minutes; see docs/stripe.md", flush=True)
    # beyond its own minutes a story cleans up; only one that hangs is killed
    seconds = int(access.minutes * 60) + 300
    options = ["-v", "-p", "no:randomly", f"--timeout={seconds}", "--force-enable-socket"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, STORIES, *arguments], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
