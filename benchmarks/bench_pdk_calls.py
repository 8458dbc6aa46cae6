"""What an event costs a worker, and each PDK call in it: events of 0, 1, 4 and 7 calls, the line through them.

Once for a plugin that waits for each answer, once for one whose calls travel together (`waits_for_kong = False`).
"""

import argparse
import tempfile
from pathlib import Path

from gateway_kit import NIL, Events, OurServer, Result, drive, print_rows, write_json

PLUGIN = """
Schema = []
version = "1"
priority = 1
waits_for_kong = {waits}

class Plugin:
    def __init__(self, config):
        self.calls = config["calls"]

    def access(self, kong):
        for _ in range(self.calls):
            kong.service.request.set_header("X-Name", "value")
"""
CALLS = (0, 1, 4, 7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    values = {}
    with tempfile.TemporaryDirectory(prefix="kmb") as name:
        directory = Path(name)
        for kind, waits in (("answered one by one", True), ("sent together", False)):
            (directory / "calls.py").write_text(PLUGIN.format(waits=waits))
            best = measure(directory, kind, options.seconds, options.rounds)
            base, slope = line([(calls, result.cpu_us_per_event) for calls, result in best.items()])
            print_rows(kind, list(best.values()))
            print(f"an event {base:.1f} us and each call {slope:.1f} us of the worker's CPU\n")
            rows = {calls: result.row() for calls, result in best.items()}
            values[kind] = {"event_us": base, "call_us": slope, "by_calls": rows}
    write_json("pdk_calls", values, options.json)


def measure(directory: Path, kind: str, seconds: float, rounds: int) -> dict[int, Result]:
    """Return the cheapest round for each number of calls."""
    best: dict[int, Result] = {}
    with OurServer(directory, "--plugins", "calls", "--plugins-dir", str(directory)) as server:
        ids = {calls: server.start_instance("calls", {"calls": calls}) for calls in CALLS}
        for _ in range(rounds):
            for calls, instance_id in ids.items():
                what = f"{calls} calls, {kind}"
                done = drive(
                    what, server, lambda one=instance_id: Events(server.path, one, lambda _: NIL), seconds
                )
                if calls not in best or done.cpu_us_per_event < best[calls].cpu_us_per_event:
                    best[calls] = done
    return best


def line(points: list[tuple[int, float]]) -> tuple[float, float]:
    """Return base and slope of the least-squares line."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    return mean_y - slope * mean_x, slope


if __name__ == "__main__":
    main()
