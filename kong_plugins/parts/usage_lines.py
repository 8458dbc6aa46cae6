"""From Kong's serialized log of one finished request to a usage line (`gateway_contract.usage_lines`).

A whitelist: what is not named here never leaves the gateway. Kong's log arrives in two forms, which give the
same line:

* *file-log* with the privacy expression (`gateway_contract.file_log`): `path`, `km_receipt`, `km_receipt_out`,
  `km_unit_<dimension>` and `km_replayed` stand beside Kong's own fields, headers and URI are gone;
* *serialized* (`kong.log.serialize` in the log phase): everything is still in it, keys included.

Receipts are taken as they were found and judged by the collector, with three exceptions that become "": a text
that no receipt can be (too long, other characters), a text that holds an API key (callers write what they like
into our header), and a header that stands there twice with different values. The gateway replaces the request's
header, so a repeated one did not come from it; a second one in the answer came from the upstream, and which is
ours is not for this side to guess: the request's receipt attributes the call as well.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec

from gateway_contract.file_log import UNIT_FIELD_PREFIX
from gateway_contract.headers import RECEIPT
from gateway_contract.usage_lines import LINE_VERSION
from kong_plugins.parts.line_values import (
    UnreadableLineError,
    checked_dimension,
    encodable,
    first_header,
    header_units,
    named_units,
    path_text,
    receipt_text,
    single_header,
    unit_text,
)

MAX_METHOD_LENGTH = 32
MAX_NAME_LENGTH = 256

_RECEIPT_HEADER = RECEIPT.lower()
_UNIT_KEY = b'"' + UNIT_FIELD_PREFIX.encode()
_BUILT_START = b'{"v":'
_MISSING = re.compile(r"missing required field `([^`]+)`")
_AT = re.compile(r"at `\$\.?([^`]*)`")

_RequestId = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Fa-f]{32}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class UsageLine(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One usage line; the fields are those of `gateway_contract.usage_lines`."""

    v: int
    id: _RequestId
    at: _Count
    ru: str
    ra: str
    sv: str
    rt: str
    m: str
    p: str
    st: _Count
    so: str
    bi: _Count
    bo: _Count
    lt: int
    lk: int
    lp: int
    ip: str
    u: dict[str, str]
    rp: str = ""


class _Request(msgspec.Struct, gc=False):
    id: _RequestId
    method: str
    size: _Count
    uri: str | None = None
    headers: dict[str, Any] | None = None


class _Response(msgspec.Struct, gc=False):
    status: _Count
    size: _Count
    headers: dict[str, Any] | None = None


class _Latencies(msgspec.Struct, gc=False):
    request: int | float
    kong: int | float
    proxy: int | float


class _Named(msgspec.Struct, gc=False):
    name: str | None = None


class _KongLog(msgspec.Struct, gc=False):
    request: _Request
    response: _Response
    latencies: _Latencies
    started_at: int | float
    path: str | None = None
    km_receipt: str | None = None
    km_receipt_out: str | None = None
    km_replayed: str | None = None
    service: _Named | None = None
    route: _Named | None = None
    source: str | None = None
    client_ip: str | None = None


class _Version(msgspec.Struct, gc=False):
    v: int = 0


_kong_log_decoder = msgspec.json.Decoder(_KongLog)
_usage_line_decoder = msgspec.json.Decoder(UsageLine)
_version_decoder = msgspec.json.Decoder(_Version)
_raw_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder()


def build_usage_line(
    log: Mapping[str, Any], *, unit_headers: Mapping[str, str], replay_headers: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the usage line of Kong's log of one request, in either form.

    Args:
        log: what Kong serialized, decoded from JSON.
        unit_headers: dimension (`tokens`) -> the upstream's answer header, for the serialized form. The
            file-log form names its dimensions itself.
        replay_headers: in lower case, likewise for the serialized form; the first one that is there counts.

    Raises:
        UnreadableLineError: a field is missing or of the wrong kind.
    """
    try:
        kong_log = msgspec.convert(dict(log), _KongLog)
    except msgspec.ValidationError as error:
        raise UnreadableLineError(_field_of(error)) from None
    named = {name: value for name, value in log.items() if name.startswith(UNIT_FIELD_PREFIX)}
    return msgspec.structs.asdict(_usage_line(kong_log, named, unit_headers, replay_headers))


def read_usage_line(
    raw: bytes, *, unit_headers: Mapping[str, str] | None = None, replay_headers: Iterable[str] = ()
) -> UsageLine:
    """Return the usage line of one JSON text: Kong's log in either form, or a usage line already built.

    Bytes that are not UTF-8 become U+FFFD (Kong decodes `%ff` in paths, and such a call is billed like any
    other).

    Raises:
        UnreadableLineError: not JSON, or a field is missing or of the wrong kind.
    """
    try:
        try:
            return _read(raw, unit_headers or {}, replay_headers)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            return _read(_repaired(raw), unit_headers or {}, replay_headers)
    except msgspec.ValidationError as error:
        raise UnreadableLineError(_field_of(error)) from None
    except (msgspec.DecodeError, RecursionError):
        raise UnreadableLineError("JSON") from None


def encode_usage_line(line: UsageLine | Mapping[str, Any]) -> bytes:
    """Return the line as compact JSON without a newline."""
    return _encoder.encode(line)


def _read(raw: bytes, unit_headers: Mapping[str, str], replay_headers: Iterable[str]) -> UsageLine:
    if raw.startswith(_BUILT_START):
        return _checked(_usage_line_decoder.decode(raw))
    try:
        kong_log = _kong_log_decoder.decode(raw)
    except msgspec.ValidationError:
        # In another order of fields, perhaps.
        if b'"v":' in raw and _version_decoder.decode(raw).v:
            return _checked(_usage_line_decoder.decode(raw))
        raise
    named: dict[str, Any] = {}
    if _UNIT_KEY in raw:
        fields = _raw_fields_decoder.decode(raw)
        named = {
            name: msgspec.json.decode(value)
            for name, value in fields.items()
            if name.startswith(UNIT_FIELD_PREFIX)
        }
    return _usage_line(kong_log, named, unit_headers, replay_headers)


def _repaired(raw: bytes) -> bytes:
    """The same JSON with everything replaced that has no UTF-8 form: stray bytes and lone surrogates."""
    try:
        value = json.loads(raw.decode("utf-8", "replace"))
    except ValueError:
        raise UnreadableLineError("JSON") from None
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _usage_line(
    log: _KongLog, named: Mapping[str, Any], unit_headers: Mapping[str, str], replay_headers: Iterable[str]
) -> UsageLine:
    request, response, latencies = log.request, log.response, log.latencies
    if log.started_at < 0:
        raise UnreadableLineError("started_at")
    if log.path is not None:
        path, receipt, receipt_out = log.path, log.km_receipt, log.km_receipt_out
        units = named_units(named) if named else {}
        replayed = log.km_replayed
    elif request.uri is not None:
        path = request.uri
        receipt = single_header(request.headers, _RECEIPT_HEADER, "request.headers")
        receipt_out = single_header(response.headers, _RECEIPT_HEADER, "response.headers")
        units = header_units(response.headers, unit_headers)
        replayed = first_header(response.headers, replay_headers)
    else:
        raise UnreadableLineError("path")
    return UsageLine(
        v=LINE_VERSION,
        id=request.id,
        at=int(log.started_at),
        ru=receipt_text(receipt),
        ra=receipt_text(receipt_out),
        sv=_name(log.service),
        rt=_name(log.route),
        m=request.method[:MAX_METHOD_LENGTH],
        p=path_text(path),
        st=response.status,
        so=log.source or "",
        bi=request.size,
        bo=response.size,
        lt=round(latencies.request),
        lk=round(latencies.kong),
        lp=round(latencies.proxy),
        ip=log.client_ip or "",
        u=units,
        rp=unit_text(replayed) if replayed else "",
    )


def _checked(line: UsageLine) -> UsageLine:
    """A line from the other door was built by `build_usage_line`; trust its shape, not its contents."""
    if line.v != LINE_VERSION:
        raise UnreadableLineError("v")
    line.ru, line.ra, line.p = receipt_text(line.ru), receipt_text(line.ra), path_text(line.p)
    line.m, line.sv, line.rt = line.m[:MAX_METHOD_LENGTH], line.sv[:MAX_NAME_LENGTH], line.rt[:MAX_NAME_LENGTH]
    if line.u:
        line.u = {checked_dimension(name): unit_text(value) for name, value in line.u.items()}
    if line.rp:
        line.rp = unit_text(line.rp)
    return line


def _name(entity: _Named | None) -> str:
    return "" if entity is None or entity.name is None else encodable(entity.name[:MAX_NAME_LENGTH])


def _field_of(error: msgspec.ValidationError) -> str:
    text = str(error)
    at, missing = _AT.search(text), _MISSING.search(text)
    parts = [at[1] if at else "", missing[1] if missing else ""]
    return ".".join(part for part in parts if part) or "JSON object"
