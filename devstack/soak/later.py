"""`python -m devstack.soak.later SECONDS serve`: `km` with a wall clock that runs ahead.

So an hour can be sealed and settled without waiting for its end. For tests of a stack that nobody calls any more.
"""

import sys
from datetime import timedelta
from importlib import import_module

from control_plane.foundation import clock

_real_now = clock.utc_now


def main() -> None:
    ahead = timedelta(seconds=int(sys.argv.pop(1)))
    # before anything else is imported, which takes the function by its name
    clock.utc_now = lambda: _real_now() + ahead
    import_module("control_plane.entrypoints.cli").main()


if __name__ == "__main__":
    main()
