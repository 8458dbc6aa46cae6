"""A caller: one key on one attached plugin, with everything worked out that does not change from call to call."""

from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from gateway_contract import headers
from gateway_contract.modes import Mode
from gateway_contract.outcomes import Outcome
from gateway_contract.records import (
    AccountRecord,
    AccountStatus,
    KeyRecord,
    KeyStatus,
    ProductGrant,
    RedisDownPolicy,
)
from gateway_contract.redis_names import account_versions, slot_of
from kong_plugins.parts.limit_script import CALLS, Limit, build_question
from kong_plugins.parts.plugin_config import AccessConfig
from kong_plugins.parts.receipt_signer import receipt_tail
from kong_plugins.parts.record_cache import KnownAccount, KnownKey
from kong_plugins.parts.redis_connection import encode_command
from kong_plugins.parts.scope_rule import ScopeRule, build_scope_rule

Network: TypeAlias = IPv4Network | IPv6Network
FOR_EVER_MS = 2**63


@dataclass(slots=True, eq=False)
class Caller:
    """`refusal` is set where every call of this caller is refused; then the fields below it are empty.

    `slot` is where a cluster keeps the account. `command` is the encoded call of the limit script, `limits` what
    its answer counts (from 1). `used_up` stands while the script's last answer was that a quota or cap is used
    up: which, what is left, until when (ms).
    `from_ms` and `until_ms`: the moments of Redis time between which this grant holds; `until_ms` 0: at any.
    `passes` says that nothing but limits stands in the way of any call; else `scope_rule`, `networks` and
    `sandbox` are what the records demand to be asked of Kong.
    """

    config: AccessConfig
    key: KeyRecord
    account: AccountRecord
    known: KnownKey
    known_account: KnownAccount
    units: int
    served_tail: str
    refusal: Outcome | None
    grant: ProductGrant | None = None
    from_ms: int = 0
    until_ms: int = 0
    passes: bool = False
    sandbox: str = ""
    scope_rule: ScopeRule | None = None
    networks: tuple[Network, ...] = ()
    command: bytes = b""
    versions_command: bytes = b""
    slot: int = 0
    limits: tuple[Limit | None, ...] = ()
    windows: tuple[tuple[str, Limit], ...] = ()
    open_while_away: bool = True
    used_up: tuple[Limit, int, int] | None = None
    consumer: dict[str, str] = field(default_factory=dict)
    credential: dict[str, str] = field(default_factory=dict)
    upstream_headers: dict[str, str] = field(default_factory=dict)
    policy_header: str = ""

    def tail(self, outcome: Outcome) -> str:
        """Return the receipt's tail for this outcome. A refused call has no units: it burns no quota."""
        return receipt_tail(
            account_id=self.account.id,
            key_id=self.key.id,
            product=self.config.api_product,
            mode=self.key.mode,
            outcome=outcome,
            units=self.units if outcome is Outcome.SERVED else 0,
        )


def build_caller(
    known: KnownKey, account: KnownAccount, config: AccessConfig, route_name: str, *, now_ms: int
) -> Caller:
    """Work out what the records mean where this plugin is attached, at this moment of Redis time.

    Raises:
        ValueError: the records ask for what cannot be kept.
    """
    key = known.record
    grant, from_ms, until_ms = grant_at(account.record, config.api_product, now_ms)
    units = 1 if grant is None else grant.route_units.get(route_name, 1)
    caller = Caller(
        config=config,
        key=key,
        account=account.record,
        known=known,
        known_account=account,
        units=units,
        served_tail="",
        refusal=_standing_refusal(key, account.record, grant, config),
        from_ms=from_ms,
        until_ms=until_ms,
    )
    caller.served_tail = caller.tail(Outcome.SERVED)
    if caller.refusal is not None or grant is None:
        return caller
    caller.grant = grant
    if not config.limits_only:
        caller.scope_rule = build_scope_rule(key.scopes, config)
        caller.networks = _networks(key)
        caller.sandbox = config.sandbox_upstream if key.mode is Mode.TEST else ""
    caller.passes = not (caller.scope_rule or caller.networks or caller.sandbox or key.expires_at_ms is not None)
    caller.slot = slot_of(account_versions(key.account_id))
    caller.versions_command = encode_command("HMGET", account_versions(key.account_id), "account", key.id)
    question = build_question(
        key=key,
        account_version=account.record.version,
        grant=grant,
        product=config.api_product,
        units=units,
        route_name=route_name,
        dry_run=config.dry_run,
    )
    caller.command, caller.limits = question.encode(), question.limits
    caller.windows = question.windows
    caller.open_while_away = grant.redis_down is RedisDownPolicy.OPEN
    caller.policy_header = _policy_header(question.shown)
    _name(caller, grant)
    return caller


def build_unusable_caller(known: KnownKey, account: KnownAccount, config: AccessConfig) -> Caller:
    """Return the caller whose records ask for what cannot be kept here: nobody can decide its calls."""
    return Caller(
        config=config,
        key=known.record,
        account=account.record,
        known=known,
        known_account=account,
        units=0,
        served_tail="",
        refusal=Outcome.UNAVAILABLE,
    )


def grant_at(account: AccountRecord, product: str, now_ms: int) -> tuple[ProductGrant | None, int, int]:
    """Return what the account may do with the API product at a moment of Redis time, from when and until when.

    Until 0: at any moment. Until when is never 0 for a grant that took another's place: before the first answer of
    Redis our clock may be far ahead of it.
    """
    grant, from_ms = account.products.get(product), 0
    while grant is not None and (then := grant.next) is not None:
        if now_ms < then.starts_at_ms:
            return grant, from_ms, then.starts_at_ms
        grant, from_ms = then.grant, then.starts_at_ms
    return grant, from_ms, FOR_EVER_MS if from_ms else 0


def _standing_refusal(
    key: KeyRecord, account: AccountRecord, grant: ProductGrant | None, config: AccessConfig
) -> Outcome | None:
    here = not config.limits_only
    reasons = (
        (key.status is not KeyStatus.ACTIVE, Outcome.KEY_REVOKED),
        (account.status is not AccountStatus.ACTIVE, Outcome.ACCOUNT_SUSPENDED),
        (grant is None, Outcome.NOT_SUBSCRIBED),
        (grant is not None and grant.paused, Outcome.SUBSCRIPTION_PAUSED),
        (grant is not None and grant.payment_due, Outcome.PAYMENT_REQUIRED),
        (here and key.mode is Mode.TEST and not config.sandbox_upstream, Outcome.NO_SANDBOX),
        (here and not _is_entitled(grant, config.entitlement), Outcome.NOT_ENTITLED),
    )
    return next((outcome for stands, outcome in reasons if stands), None)


def _is_entitled(grant: ProductGrant | None, entitlement: str) -> bool:
    return not entitlement or (grant is not None and entitlement in grant.entitlements)


def _networks(key: KeyRecord) -> tuple[Network, ...]:
    return tuple(ip_network(text, strict=False) for text in key.ip_ranges)


def is_address_allowed(caller: Caller, address: str) -> bool:
    """Say whether the address lies in one of the caller's ranges; an unreadable address does not.

    An IPv4 address as a socket for both families shows it (`::ffff:192.0.2.1`) is that IPv4 address.
    """
    try:
        found: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in caller.networks)


@lru_cache(maxsize=4096)
def _policy_header(limits: tuple[Limit, ...]) -> str:
    """Return `RateLimit-Policy`: every limit by name, `q` its size, `w` its window in seconds, rounded up.

    `qu` says what is counted, where that is not requests. Callers on one plan share the text.
    """
    items = []
    for limit in limits:
        unit = "" if limit.quota_unit == CALLS else f';qu="{limit.quota_unit}"'
        window = "" if limit.window_ms is None else f";w={-(-limit.window_ms // 1000)}"
        items.append(f'"{limit.name}";q={limit.limit}{unit}{window}')
    return ", ".join(items)


def _name(caller: Caller, grant: ProductGrant) -> None:
    """Say who calls: to Kong (as a consumer it need not know) and to the upstream."""
    key, account = caller.key, caller.account
    username = account.name or account.id
    consumer_id = str(uuid5(NAMESPACE_URL, f"km:{account.id}"))
    credential_id = str(uuid5(NAMESPACE_URL, f"km:{key.id}"))
    caller.consumer = {"id": consumer_id, "username": username, "custom_id": account.id}
    caller.credential = {"id": credential_id, "consumer_id": consumer_id}
    caller.upstream_headers = {
        headers.CONSUMER_ID: consumer_id,
        headers.CONSUMER_CUSTOM_ID: account.id,
        headers.CONSUMER_USERNAME: quote(username, safe=" !#$&'()*+,-./:;=?@[]_~"),
        headers.CREDENTIAL_IDENTIFIER: key.id,
        headers.ACCOUNT: account.id,
        headers.PLAN: grant.plan,
        headers.MODE: key.mode.value,
    }
