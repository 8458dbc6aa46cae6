"""`python -m devstack.stripe --port 12111`."""

import argparse

import uvicorn

from devstack.stripe.app import make_app
from devstack.stripe.simulator import Simulator, SimulatorConfig


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m devstack.stripe", description="A Stripe simulator on 127.0.0.1")
    parser.add_argument("--port", type=int, default=12111)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sim = Simulator(SimulatorConfig(seed=given.seed))
    uvicorn.run(make_app(sim), host="127.0.0.1", port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
