"""Keeping what is simulated between two runs of the local stack: one file, written a moment after each change."""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path

from devstack.stripe.idempotency import IdempotencyKeys
from devstack.stripe.simulator import Simulator


@dataclass
class Kept:
    """An account with all that is to happen in it, and the keys of requests that it has answered.

    What was on its way to webhooks is not kept, as after an outage: the list of events has it.
    """

    sim: Simulator
    keys: IdempotencyKeys


def save(path: Path, kept: Kept) -> None:
    """Replace the file; whoever reads it finds the former or the new one, whole."""
    written = path.with_name(f"{path.name}.new")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        pickle.dump(kept, file)
    written.replace(path)


def load(path: Path) -> Kept | None:
    """Return what was kept; None where nothing was, or where it was kept by another version of the simulator."""
    try:
        with path.open("rb") as file:
            found = pickle.load(file)  # noqa: S301 - a file of our own, in the stack's own directory
    except FileNotFoundError:
        return None
    except Exception:  # noqa: BLE001 - another version's: the simulator then begins empty
        return None
    return found if isinstance(found, Kept) else None
