"""`python -m devstack.stripe --port 12111`."""

import argparse
from pathlib import Path

import uvicorn

from devstack.stripe.app import make_app
from devstack.stripe.simulator import Simulator, SimulatorConfig


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m devstack.stripe", description="A Stripe simulator on 127.0.0.1"
    )
    parser.add_argument("--port", type=int, default=12111)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--aggregation-seconds", type=int, default=0)
    parser.add_argument("--requests-per-second", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a file to go on from, and to keep everything in")
    given = parser.parse_args()
    config = SimulatorConfig(
        seed=given.seed,
        aggregation_seconds=given.aggregation_seconds,
        requests_per_second=given.requests_per_second,
    )
    sim = Simulator(config)
    # a call that is never answered must not keep the process from ending
    uvicorn.run(
        make_app(sim, keep=given.keep),
        host="127.0.0.1",
        port=given.port,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
