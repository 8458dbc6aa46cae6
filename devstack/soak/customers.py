"""Whom the soak plays: accounts on plans that stay open or closed while Redis is away, and callers of each."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from devstack.demo.control import ControlClient
from devstack.kong_files import FILE_LOG
from devstack.soak.ledger import Door, KeyLife
from devstack.stack_layout import REPOSITORY
from gateway_contract import plugins
from gateway_contract.modes import Mode

CATALOG = Path(__file__).with_name("catalog.yml")
UNITS = {"tokens": "x-usage-tokens"}
Windows = tuple[tuple[int, int], ...]

WIDE: Windows = ((1_000, 1_000),)
NARROW: Windows = ((5, 1_000), (40, 10_000))
# above a hundred the script counts in sub-buckets
COUNTED: Windows = ((150, 10_000),)


@dataclass(frozen=True, slots=True)
class Role:
    """One account and how its callers behave. `quota` is hard or soft as the plan says."""

    name: str
    plan: str
    windows: Windows
    per_second: float
    concurrency: int
    door: Door = Door.FILE_LOG
    mode: Mode = Mode.LIVE
    key_windows: Windows = ()
    changing_keys: bool = False
    mixed_answers: bool = False
    quota: int | None = None


@dataclass(slots=True)
class Customer:
    """An account that calls, as it was made for a role. `keys` are those in use, ended ones too."""

    role: Role
    account_id: str
    subscription_id: str
    keys: list[KeyLife] = field(default_factory=list)

    @property
    def is_closed(self) -> bool:
        """Its plan refuses calls while Redis is away."""
        return self.role.plan.startswith("closed")

    @property
    def has_hard_quota(self) -> bool:
        return self.role.plan == "closed-hard"


def roles(*, minutes: float) -> tuple[Role, ...]:
    """Return who calls; the hard quota is used up at about half of the time."""
    return (
        Role("closed", "closed", NARROW, per_second=14, concurrency=6),
        Role("closed-counted", "closed", COUNTED, per_second=20, concurrency=6),
        Role("open", "open", NARROW, per_second=14, concurrency=6),
        Role("hard", "closed-hard", WIDE, per_second=6, concurrency=3, quota=max(60, int(minutes * 60 * 3))),
        Role("mixed", "open", WIDE, per_second=16, concurrency=10, mixed_answers=True),
        Role("metered", "closed", NARROW, per_second=8, concurrency=4, door=Door.METER),
        Role("keys", "open", WIDE, per_second=14, concurrency=6, changing_keys=True),
        Role("shared", "closed", WIDE, per_second=8, concurrency=4, key_windows=((3, 1_000),)),
        Role("sandbox", "open", WIDE, per_second=2, concurrency=1, mode=Mode.TEST),
    )


def write_kong_yml(path: Path, *, spool_file: Path) -> None:
    """Write a kong.yml whose two routes have one usage door each; a route's own file-log keeps its path."""
    base: dict[str, Any] = yaml.safe_load((REPOSITORY / "kong.yml").read_text())
    (service,) = base["services"]
    (file_log,) = (plugin for plugin in base["plugins"] if plugin["name"] == FILE_LOG)
    file_log["config"]["path"] = str(spool_file)
    monetize = {"name": plugins.MONETIZE, "config": {"api_product": "weather"}}
    service["routes"] = [
        {
            "name": "weather",
            "paths": ["/weather"],
            "strip_path": True,
            "plugins": [monetize, file_log],
        },
        {
            "name": "metered",
            "paths": ["/metered"],
            "strip_path": True,
            "plugins": [monetize, {"name": plugins.USAGE_METER, "config": {"unit_headers": UNITS}}],
        },
    ]
    base["plugins"] = []
    path.write_text(yaml.safe_dump(base, sort_keys=False, width=float("inf")))


async def set_up(control: ControlClient, wanted: tuple[Role, ...]) -> list[Customer]:
    """Load the catalog, attach the routes, and make an account with one key for each role."""
    await control.post("/plans/apply", yaml=CATALOG.read_text())
    await control.post("/gateway/push")
    return [await _customer(control, role) for role in wanted]


async def _customer(control: ControlClient, role: Role) -> Customer:
    account = await control.post("/accounts", {"name": f"Soak {role.name}"})
    subscription = await control.post(f"/accounts/{account['id']}/subscriptions", {"plan": role.plan})
    overrides: dict[str, Any] = {"windows": as_windows(role.windows)}
    if role.quota is not None:
        overrides["quota_units"] = role.quota
    await control.post(f"/subscriptions/{subscription['id']}/override", overrides)
    customer = Customer(role=role, account_id=account["id"], subscription_id=subscription["id"])
    customer.keys.append(await issue_key(control, customer))
    return customer


async def issue_key(control: ControlClient, customer: Customer, **restrictions: Any) -> KeyLife:
    """Issue one more key of the account. Raises ControlError and aiohttp's errors."""
    wanted = {
        "name": "soak",
        "mode": customer.role.mode.value,
        "windows": as_windows(customer.role.key_windows),
        **restrictions,
    }
    issued = await control.post(f"/accounts/{customer.account_id}/keys", wanted)
    return KeyLife(key_id=issued["key"]["id"], account_id=customer.account_id, text=issued["text"])


def as_windows(windows: Windows) -> list[dict[str, int]]:
    return [{"limit": limit, "window_ms": window_ms} for limit, window_ms in windows]
