"""`python -m devstack.soak`."""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.live import Live

from devstack.children import ChildFailedError
from devstack.demo.control import ControlError
from devstack.soak.faults import CLUSTER_FAULTS, FAULTS, faults_of
from devstack.soak.report import StatusLine, print_report, write_json
from devstack.soak.run import Result, make_stack, soak
from devstack.soak.schedule import Plan, Progress
from devstack.stack import Stack

LINE_EVERY_SECONDS = 15.0


def main() -> int:
    parser = _parser()
    options = parser.parse_args()
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    faults = [fault for fault in faults_of(options.redis) if not options.only or fault.name in options.only]
    if not faults:
        parser.error(f"no such fault with --redis {options.redis}: {', '.join(options.only)}")
    directory = Path(tempfile.mkdtemp(prefix="km-soak-"))
    progress = Progress()
    stack = make_stack(directory, redis=options.redis)
    try:
        stack.start()
        status = StatusLine(progress, minutes=options.minutes)
        playing = soak(stack, Plan(minutes=options.minutes, seed=options.seed, faults=faults), progress)
        result = asyncio.run(_show(console, status, playing))
    except (ChildFailedError, ControlError, OSError, aiohttp.ClientError) as error:
        console.print(f"[red]soak:[/red] {error}", highlight=False)
        return 2
    finally:
        _leave(stack, directory, keep=options.keep)
        if options.keep:
            console.print(f"kept: {directory}", highlight=False)
    print_report(console, result)
    if options.json:
        write_json(options.json, result)
    return 0 if result.ok else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m devstack.soak",
        description="Traffic with random faults on a stack of its own; fails if one call was lost, doubled, "
        "served over a limit or without a valid key, or if a key can be read anywhere.",
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="how long faults are caused (30)")
    parser.add_argument("--seed", type=int, default=1, help="draws faults, their moments and the calls (1)")
    parser.add_argument("--keep", action="store_true", help="keep the stack's directory: logs, spool, stores")
    parser.add_argument("--json", type=Path, help="file to which the report is written, too")
    parser.add_argument(
        "--redis",
        choices=("server", "cluster"),
        default="server",
        help="one server, or a cluster",
    )
    names = list(dict.fromkeys(fault.name for fault in FAULTS + CLUSTER_FAULTS))
    parser.add_argument(
        "--only", action="append", choices=names, metavar="FAULT", help=f"only this: {', '.join(names)}"
    )
    return parser


async def _show(console: Console, status: StatusLine, playing: Coroutine[Any, Any, Result]) -> Result:
    """Run it with one status line that lives in a terminal, and with a line now and then elsewhere."""
    task = asyncio.create_task(playing)
    if console.is_terminal:
        with Live(status, console=console, refresh_per_second=4, transient=True):
            return await task
    while True:
        done, _ = await asyncio.wait([task], timeout=LINE_EVERY_SECONDS)
        console.print(str(status), highlight=False)
        if done:
            return await task


def _leave(stack: Stack, directory: Path, *, keep: bool) -> None:
    if keep:
        stack.stop()
        return
    stack.destroy()
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
