"""Whom the soak plays: accounts on plans that stay open or closed while Redis is away, and callers of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from devstack.demo.control import ControlClient
from devstack.kong_files import FILE_LOG
from devstack.soak.asks import MIXED, PLAIN, REPORTING, SLOW, Answers
from devstack.soak.ledger import Door, KeyLife
from devstack.stack_layout import REPOSITORY
from gateway_contract import plugins
from gateway_contract.modes import Mode

CATALOG = Path(__file__).with_name("catalog.yml")
UNITS = {"tokens": "x-usage-tokens"}
ROUTES = {Door.FILE_LOG: "weather", Door.METER: "metered"}
JOBS = "jobs"
Windows = tuple[tuple[int, int], ...]

WIDE: Windows = ((1_000, 1_000),)
NARROW: Windows = ((5, 1_000), (40, 10_000))
# above a hundred the script counts in sub-buckets
COUNTED: Windows = ((150, 10_000),)


@dataclass(frozen=True, slots=True)
class SpendCap:
    """A customer's cap, and what the plan costs, in minor units: so much fixed, and so much for each unit."""

    cap_minor: int
    fixed_minor: int
    unit_minor: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class AtOnce:
    """How many calls the plan of the jobs lets run at once, and when one whose end nobody saw is given up."""

    limit: int
    lease_ms: int


@dataclass(frozen=True, slots=True)
class Role:
    """One account and how its callers behave. `quota` is hard or soft as the plan says.

    `concurrency` is how many callers there are. Each call is repeated as often as is drawn from `repetitions`.
    """

    name: str
    plan: str
    windows: Windows
    per_second: float
    concurrency: int
    door: Door = Door.FILE_LOG
    mode: Mode = Mode.LIVE
    key_windows: Windows = ()
    changing_keys: bool = False
    answers: Answers = PLAIN
    repetitions: tuple[int, ...] = (0,)
    quota: int | None = None
    spend_cap: SpendCap | None = None
    at_once: AtOnce | None = None

    @property
    def route(self) -> str:
        return JOBS if self.at_once else ROUTES[self.door]

    @property
    def product(self) -> str:
        return JOBS if self.at_once else "weather"


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


# as catalog.yml has them
UNIT_PRICES = {"requests": Decimal(1)}
UNIT_AND_TOKEN_PRICES = {"requests": Decimal(1), "tokens": Decimal("0.1")}
MOST_TOKENS = 20
FIXED_MINOR = 100
JOBS_AT_ONCE = AtOnce(limit=4, lease_ms=5_000)


def roles(*, minutes: float) -> tuple[Role, ...]:
    """Return who calls; the hard quota and the spend caps are used up at about half of the time."""
    calls = max(40, int(minutes * 60 * 3))
    reserved_minor = 1 + MOST_TOKENS // 10
    in_units = SpendCap(FIXED_MINOR + calls, FIXED_MINOR, UNIT_PRICES)
    in_money = SpendCap(FIXED_MINOR + calls * reserved_minor, FIXED_MINOR, UNIT_AND_TOKEN_PRICES)
    return (
        Role("closed", "closed", NARROW, per_second=10, concurrency=6),
        Role("closed-counted", "closed", COUNTED, per_second=20, concurrency=6),
        Role("open", "open", NARROW, per_second=10, concurrency=6),
        Role("hard", "closed-hard", WIDE, per_second=6, concurrency=3, quota=calls),
        Role("mixed", "open", WIDE, per_second=12, concurrency=8, answers=MIXED),
        Role("metered", "closed", NARROW, per_second=8, concurrency=4, door=Door.METER),
        Role("keys", "open", WIDE, per_second=10, concurrency=6, changing_keys=True),
        Role("shared", "closed", WIDE, per_second=8, concurrency=4, key_windows=((3, 1_000),)),
        Role("cap-units", "closed-cap-units", WIDE, per_second=6, concurrency=3, spend_cap=in_units),
        Role(
            "cap-money",
            "closed-cap-money",
            WIDE,
            per_second=6,
            concurrency=3,
            answers=REPORTING,
            spend_cap=in_money,
        ),
        Role("jobs", "closed-jobs", WIDE, 8, concurrency=8, door=Door.METER, answers=SLOW, at_once=JOBS_AT_ONCE),
        Role("replays", "closed", WIDE, per_second=3, concurrency=2, repetitions=(0, 1, 1, 3)),
        Role("sandbox", "open", WIDE, per_second=2, concurrency=1, mode=Mode.TEST),
    )


def write_kong_yml(path: Path, *, spool_file: Path) -> None:
    """Write a kong.yml whose routes have one usage door each; a route's own file-log keeps its path."""
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
        {
            "name": JOBS,
            "paths": ["/jobs"],
            "strip_path": True,
            "plugins": [
                {"name": plugins.MONETIZE, "config": {"api_product": JOBS}},
                {"name": plugins.USAGE_METER, "config": {"unit_headers": UNITS, "concurrency": True}},
            ],
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
    if role.spend_cap is not None:
        amount = f"{Decimal(role.spend_cap.cap_minor) / 100:.2f}"
        await control.put(f"/subscriptions/{subscription['id']}/spend-cap", {"amount": amount})
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
