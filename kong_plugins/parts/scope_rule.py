"""What a key's scopes allow where a plugin is attached, worked out once for each key."""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway_contract.records import FULL_SCOPE, READ_ONLY_METHODS, READ_ONLY_SCOPE
from kong_plugins.parts.plugin_config import AccessConfig

_ANY = ""


@dataclass(frozen=True, slots=True)
class ScopeRule:
    """For a key whose scopes do not allow every call.

    `missing` says by method which scopes a call would need that the key does not hold, () where it may go on; a
    method that is not named there is as "".
    """

    missing: dict[str, tuple[str, ...]]

    @property
    def depends_on_method(self) -> bool:
        return len(self.missing) > 1

    def missing_for(self, method: str) -> tuple[str, ...]:
        """Return the scopes that a call with this method would need, or () where it may go on."""
        found = self.missing.get(method)
        return self.missing[_ANY] if found is None else found


def build_scope_rule(scopes: Iterable[str], config: AccessConfig) -> ScopeRule | None:
    """Return what must be judged of calls of a key with these scopes, None where it may do anything.

    HEAD is judged as GET where `method_scopes` names GET only: it is the same without a body.
    """
    held = frozenset(scopes)
    if FULL_SCOPE in held:
        return None
    demanded = dict(config.method_scopes)
    if "GET" in demanded:
        demanded.setdefault("HEAD", demanded["GET"])
    methods = {_ANY, *demanded}
    if READ_ONLY_SCOPE in held:
        methods |= READ_ONLY_METHODS
    missing = {method: _missing(held, demanded.get(method, config.scopes), method) for method in methods}
    if not any(missing.values()):
        return None
    if len(set(missing.values())) == 1:
        return ScopeRule({_ANY: missing[_ANY]})
    return ScopeRule(missing)


def _missing(held: frozenset[str], demanded: tuple[str, ...], method: str) -> tuple[str, ...]:
    reads = method in READ_ONLY_METHODS
    if not demanded:
        if reads and READ_ONLY_SCOPE in held:
            return ()
        return (READ_ONLY_SCOPE,) if reads else (FULL_SCOPE,)
    if not held.issuperset(demanded):
        return demanded
    return (FULL_SCOPE,) if READ_ONLY_SCOPE in held and not reads else ()
