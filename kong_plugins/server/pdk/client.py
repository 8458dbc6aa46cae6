"""`kong.client`: who is calling."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from kong_plugins.server import messages, wire
from kong_plugins.server.errors import PdkError
from kong_plugins.server.methods import METHODS
from kong_plugins.server.pdk.channel import Namespace
from kong_plugins.server.string_structs import encode_texts

# A mapping, or an object with attributes, that has the fields Kong knows; others are ignored.
Entity: TypeAlias = Mapping[str, Any] | object

_AUTHENTICATE = METHODS["kong.client.authenticate"]
_CONSUMER_TEXTS = (("\x0a", "id"), ("\x1a", "username"), ("\x22", "custom_id"))
_CREDENTIAL_TEXTS = (("\x0a", "id"), ("\x12", "consumer_id"))
_CREATED_AT, _TAG = b"\x10", b"\x2a"


class Client(Namespace):
    __slots__ = ()

    def get_ip(self) -> str:
        return self._text("kong.client.get_ip")

    def get_forwarded_ip(self) -> str:
        return self._text("kong.client.get_forwarded_ip")

    def get_port(self) -> int:
        return self._number("kong.client.get_port")

    def get_forwarded_port(self) -> int:
        return self._number("kong.client.get_forwarded_port")

    def get_protocol(self, allow_terminated: bool = False) -> str | None:  # noqa: FBT001, FBT002 - the PDK's signature
        return self._text_or_none("kong.client.get_protocol", b"\x08\x01" if allow_terminated else b"")

    def authenticate(self, consumer: Entity | None, credential: Entity | None = None) -> None:
        """Set who the caller is for the rest of the request; Kong need not know the consumer.

        At least one of the two must be given.
        """
        if consumer is None and credential is None:
            raise PdkError("authenticate needs a consumer or a credential")
        out = b""
        if consumer is not None:
            out = _message(b"\x0a", _encode_consumer(consumer))
        if credential is not None:
            out += _message(b"\x12", _texts(_getter(credential), _CREDENTIAL_TEXTS))
        self._channel.call(_AUTHENTICATE, out)

    def get_consumer(self) -> dict[str, Any] | None:
        return self._entity("kong.client.get_consumer", "Consumer", b"")

    def get_credential(self) -> dict[str, Any] | None:
        return self._entity("kong.client.get_credential", "AuthenticatedCredential", b"")

    def load_consumer(self, consumer_id: str, search_by_username: bool = False) -> dict[str, Any] | None:  # noqa: FBT001, FBT002 - the PDK's signature
        argument = wire.encode_string(consumer_id) + (b"\x10\x01" if search_by_username else b"")
        return self._entity("kong.client.load_consumer", "Consumer", argument)

    def _entity(self, method: str, kind: str, argument: bytes) -> dict[str, Any] | None:
        reply = self._channel.call(METHODS[method], argument)
        return messages.decode(kind, reply) if reply else None


def _message(tag: bytes, data: bytes) -> bytes:
    return tag + wire.encode_varint(len(data)) + data


def _encode_consumer(consumer: Entity) -> bytes:
    get = _getter(consumer)
    out = _texts(get, _CONSUMER_TEXTS)
    created_at = get("created_at")
    if created_at is not None:
        out += _CREATED_AT + wire.encode_varint(int(created_at))
    tags: Iterable[str] = get("tags") or ()
    for tag in tags:
        out += _message(_TAG, wire.text_bytes(tag))
    return out


def _getter(entity: Entity) -> Any:
    """Return a function from field name to value or None, for either kind of entity."""
    if isinstance(entity, dict):
        return entity.get
    if isinstance(entity, Mapping):
        return entity.get
    return lambda name: getattr(entity, name, None)


def _texts(get: Any, fields: tuple[tuple[str, str], ...]) -> bytes:
    short = encode_texts(get, fields)
    if short is not None:
        return short
    out = []
    for tag, name in fields:
        text = get(name)
        if text is not None:
            out.append(_message(tag.encode(), wire.text_bytes(str(text))))
    return b"".join(out)
