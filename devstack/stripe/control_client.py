"""Ordering the simulator about from a test: its time, its faults, its webhooks."""

import json
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

ANSWER_SECONDS = 120.0


class ControlError(Exception):
    """The simulator refused an order, or does not answer."""


class Control:
    """Blocking calls to `/_sim/...`. Every method raises ControlError when the order is refused."""

    def __init__(self, url: str) -> None:
        self.url = url

    # time

    def now(self) -> int:
        """Seconds since 1970 on the simulator's own clock."""
        return int(self._ask("GET", "now")["now"])

    def freeze(self, at: int | None = None) -> int:
        """Stand still, now or at a later moment; returns the moment."""
        return int(self._ask("POST", "freeze", {"at": at})["now"])

    def thaw(self) -> int:
        """Go on at the machine's pace from where it stands."""
        return int(self._ask("POST", "thaw")["now"])

    def advance(self, seconds: int | None = None, *, to: int | None = None) -> int:
        """Move the simulator's clock; everything due on the way happens in order, at its own moment."""
        return int(self._ask("POST", "advance", {"seconds": seconds, "to": to})["now"])

    def reset(self, *, at: int | None = None, **config: Any) -> None:
        """An empty account at the machine's time (or frozen at a moment); faults, webhooks and violations go too.

        `config` as in `configure`; what is not given has its default again.
        """
        self._ask("POST", "reset", {"at": at, **config})

    def configure(self, **config: Any) -> dict[str, Any]:
        """Change settings of SimulatorConfig, such as aggregation_seconds; returns all of them."""
        return self._ask("POST", "config", config)

    # faults

    def fault(
        self, kind: str, *, method: str = "*", path: str = "*", count: int = 1, seconds: float | None = None
    ) -> None:
        """Let the next `count` matching calls fail. `path` may hold `*`.

        Kinds: timeout_before, timeout_after, error_before, error_after (500), rate_limited (429 without
        Stripe-Should-Retry), lock_timeout (429 with it), reset_before, reset_after, slow (`seconds` late).
        "after" means that the call was carried out.
        """
        self._ask(
            "POST",
            "faults",
            {"kind": kind, "method": method, "path": path, "count": count, "seconds": seconds},
        )

    def random_faults(self, rates: dict[str, float], *, seed: int = 0, path: str = "/v*") -> None:
        """From now on let this part of all calls fail, by kind."""
        self._ask("POST", "random_faults", {"rates": rates, "seed": seed, "path": path})

    def faults(self) -> dict[str, Any]:
        """Those still to come, and how many of each kind have happened."""
        return self._ask("GET", "faults")

    def clear_faults(self) -> None:
        self._ask("DELETE", "faults")

    # webhooks

    def add_webhook(
        self,
        url: str,
        *,
        events: tuple[str, ...] = ("*",),
        secret: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> str:
        """Register an endpoint for snapshot events; returns its secret."""
        order = {"url": url, "events": list(events), "secret": secret, "metadata": metadata}
        return str(self._ask("POST", "webhooks", order)["secret"])

    def add_thin_webhook(
        self,
        url: str,
        *,
        events: tuple[str, ...] = (),
        secret: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> str:
        """Register a destination for thin events (none given: those of meters); returns its secret."""
        order = {"url": url, "events": list(events), "secret": secret, "metadata": metadata, "thin": True}
        return str(self._ask("POST", "webhooks", order)["secret"])

    def disorder(self, **orders: Any) -> None:
        """What happens to deliveries from now on: hold, duplicate, drop, delay, delay_seconds, types, seed.

        Without any: orderly again (what is held stays held).
        """
        self._ask("POST", "disorder", orders)

    def hold_webhooks(self) -> None:
        self.disorder(hold=True)

    def deliver(self, *, order: str = "made", times: int = 1, types: tuple[str, ...] = ()) -> int:
        """Send what is held: in the order `made`, `reversed` or `shuffled`; returns how many deliveries."""
        answer = self._ask("POST", "deliver", {"order": order, "times": times, "types": list(types)})
        return int(answer["sent"])

    def resend(self, event_id: str) -> int:
        """Send an event again to all who want it; returns how many deliveries."""
        return int(self._ask("POST", "resend", {"event": event_id})["sent"])

    def deliveries(self) -> dict[str, Any]:
        """Numbers of those pending, held, dropped and failed, and a list of all."""
        return self._ask("GET", "deliveries")

    def wait_delivered(self, *, timeout_seconds: float = 30.0) -> None:
        """Until nothing is on its way any more; raises ControlError when that takes too long."""
        deadline = time.monotonic() + timeout_seconds
        while self._ask("GET", "pending")["pending"]:
            if time.monotonic() > deadline:
                raise ControlError("webhooks are still on their way; does the receiver answer 2xx?")
            time.sleep(0.02)

    # what happened

    def violations(self) -> list[dict[str, Any]]:
        """What the simulator itself did wrong: answers and events that do not fit the SDK's types, and crashes."""
        return list(self._ask("GET", "violations")["violations"])

    def requests(self, path: str = "*") -> list[dict[str, Any]]:
        """Calls so far, oldest first: method, path, params, idempotency_key, status, fault, replayed, at."""
        return list(self._ask("GET", "requests", {"path": path})["requests"])

    def dump(self, kind: str | None = None) -> dict[str, list[dict[str, Any]]]:
        """All objects by kind, private fields too."""
        return dict(self._ask("GET", "dump", {"kind": kind})["objects"])

    def order(self, name: str, **given: Any) -> dict[str, Any]:
        """An order of a feature's own, such as those registered by the billing engine."""
        return self._ask("POST", f"do/{name}", given)

    def _ask(self, method: str, path: str, given: dict[str, Any] | None = None) -> dict[str, Any]:
        url = f"{self.url}/_sim/{path}"
        body = None
        if method == "GET" and given:
            url += "?" + urlencode({name: value for name, value in given.items() if value is not None})
        elif given is not None:
            body = json.dumps(given).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, data=body, method=method, headers=headers)  # noqa: S310 - our own
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - our own
                return dict(json.load(answer))
        except urllib.error.HTTPError as refused:
            raise ControlError(f"{method} {path}: {refused.read().decode(errors='replace')[:500]}") from None
        except OSError as error:
            raise ControlError(f"{method} {path}: no answer ({error})") from None
