"""The limit script at times of the test's choosing, on a real Valkey."""

import itertools
from typing import Any

import redis

from gateway_contract import redis_names
from gateway_contract.modes import Mode
from gateway_contract.records import KeyRecord, KeyStatus
from kong_plugins.parts.limit_script import ADMITTED, SCRIPT, LimitQuestion, build_question
from tests.plugins.fakes import PRODUCT, grant, now_ms

CLOCK = "redis.call('TIME')"
TEST_CLOCK = "{ARGV[#ARGV - 1], ARGV[#ARGV]}"
TIMED_SCRIPT = SCRIPT.replace(CLOCK, TEST_CLOCK)
_numbers = itertools.count()


class Timed:
    """A caller's script at a clock the test moves (microseconds). Each one is an account of its own."""

    def __init__(self, client: redis.Redis, script: Any, **changes: Any) -> None:
        self.client, self.script = client, script
        self.account = f"timed_{next(_numbers)}"
        self.start_us = now_ms() * 1000
        key_values = {name: changes.pop(name) for name in ("quota_units",) if name in changes}
        self.key = KeyRecord(
            id="key_1",
            account_id=self.account,
            mode=changes.pop("mode", Mode.LIVE),
            status=KeyStatus.ACTIVE,
            version=3,
            windows=changes.pop("key_windows", ()),
            **key_values,
        )
        self.units = changes.pop("units", 1)
        asked = {name: changes.pop(name) for name in ("route_name", "dry_run") if name in changes}
        self.grant = grant(**{"quota": None, **changes})
        self.write_versions(account=5, key=3)
        self.question = build_question(
            key=self.key, account_version=5, grant=self.grant, product=PRODUCT, units=self.units, **asked
        )

    def ask_of(self, question: LimitQuestion, at_us: int) -> list[int]:
        """Ask another question, of this account's too."""
        seconds, micros = divmod(self.start_us + at_us, 1_000_000)
        return self.script(keys=question.keys, args=[*question.arguments, seconds, micros])

    def question_with(self, **changes: Any) -> LimitQuestion:
        """Return the question after the plan changed."""
        asked = {name: changes.pop(name) for name in ("route_name", "dry_run", "units") if name in changes}
        values = {name: getattr(self.grant, name) for name in self.grant.__slots__}
        return build_question(
            key=self.key,
            account_version=5,
            grant=grant(**{**values, **changes}),
            product=PRODUCT,
            **{"units": self.units, **asked},
        )

    def counters(self) -> dict[str, int]:
        found = self.client.hgetall(self.question.keys[1])
        return {field.decode(): int(value) for field, value in found.items()}

    def write_versions(self, *, account: int, key: int) -> None:
        name = redis_names.account_versions(self.account)
        self.client.hset(name, mapping={"account": account, "key_1": key})

    def ask(self, at_us: int) -> list[int]:
        """Call at `at_us` after the start."""
        return self.ask_of(self.question, at_us)

    def admits(self, at_us: int) -> bool:
        return self.ask(at_us)[0] == ADMITTED

    def stored(self) -> dict[bytes, Any]:
        names = sorted(self.client.scan_iter(f"{redis_names.PREFIX}{{{self.account}}}*", count=1000))
        return {name: self.client.dump(name) for name in names}
