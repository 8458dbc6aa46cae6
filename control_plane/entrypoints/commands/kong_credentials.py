"""Reading what Kong's key-auth knows, from a file that Kong, decK or the Admin API wrote: consumers and keys.

Keys are hashed as they are read. Nothing that leaves this module, errors included, holds a key.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from gateway_contract.api_keys import hash_api_key, parse_api_key

STRONG_LENGTH = 20  # characters; a shorter key can be guessed, and no part of it may be shown
HINT_LENGTH = 4
MAX_NAME = 200
# what the plugins take for a key of another form than ours
_USABLE = re.compile(r"[!-~]{8,512}")
_REFERENCE = re.compile(r"\{vault://|\$\{\{")
# the loader in C is ten times as fast, where it is built in
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LISTS = ("consumers", "keyauth_credentials", "services", "routes", "plugins", "consumer_groups")


class KongFileError(Exception):
    """The file is none of the forms that are read; the message has no part of it."""


@dataclass(frozen=True, slots=True)
class ReadKey:
    """One key as it is sent: the hash, never the text."""

    key_hash: str
    name: str
    mode: str
    last_characters: str | None
    expires_at: datetime | None
    ours: bool
    weak: bool


@dataclass(slots=True)
class ReadAccount:
    """A consumer with keys. `refused` says why it is not sent, '' where it is."""

    external_id: str
    name: str
    keys: list[ReadKey] = field(default_factory=list)
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What files hold. `consumers_without_keys` are not imported; `unnamed` are known by Kong's id only."""

    accounts: tuple[ReadAccount, ...]
    consumers_without_keys: int
    unnamed: int

    @property
    def keys(self) -> Iterator[ReadKey]:
        return (key for account in self.accounts for key in account.keys)


def load_kong_file(path: Path) -> dict[str, Any]:
    """Read one file: declarative YAML or JSON, a decK export, or a list of the Admin API.

    Raises:
        KongFileError: it cannot be read, or is none of these.
    """
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text) if text.lstrip()[:1] in {"{", "["} else yaml.load(text, _LOADER)  # noqa: S506 - both loaders are safe ones
    except OSError as error:
        raise KongFileError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KongFileError(f"{path}: is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise KongFileError(f"{path}: line {error.lineno} is not JSON") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # its text would show the line, and a key in it
        where = "" if mark is None else f"line {mark.line + 1} "
        raise KongFileError(f"{path}: {where}is not YAML") from None
    if isinstance(document, dict) and isinstance(document.get("data"), list):
        return _sorted_list(path, document)
    if isinstance(document, dict) and any(isinstance(document.get(name), list) for name in _LISTS):
        return document
    raise KongFileError(f"{path}: has no consumers, keyauth_credentials or data: is it Kong's?")


def read_credentials(documents: Sequence[Mapping[str, Any]], *, mode: str, now: datetime) -> Credentials:
    """Return accounts by consumer, in the order of the files; keys of our own form keep their mode."""
    consumers = _Consumers(documents)
    accounts: dict[str, ReadAccount] = {}
    sources: dict[str, str] = {}
    for consumer, credential in _credentials(documents, consumers):
        account = accounts.setdefault(
            consumer.identity, ReadAccount(consumer.external_id, consumer.name, refused=consumer.problem)
        )
        key, problem = _read_key(credential, mode=mode, now=now)
        account.refused = account.refused or problem
        if key is not None:
            other = sources.setdefault(key.key_hash, consumer.identity)
            if other != consumer.identity:
                for both in (accounts[other], account):
                    both.refused = both.refused or f"{key.name}: the same key is given to two consumers"
            account.keys.append(key)
    _refuse_ambiguous(accounts.values())
    return Credentials(
        accounts=tuple(accounts.values()),
        consumers_without_keys=consumers.count - len(accounts.keys() & consumers.identities),
        unnamed=len(accounts.keys() - consumers.identities),
    )


@dataclass(frozen=True, slots=True)
class _Consumer:
    identity: str
    external_id: str
    name: str
    problem: str = ""


class _Consumers:
    """The files' consumers, found by id, username or custom id, as credentials refer to them."""

    def __init__(self, documents: Sequence[Mapping[str, Any]]) -> None:
        self._by: dict[tuple[str, str], _Consumer] = {}
        self.identities: set[str] = set()
        for document in documents:
            for entry in _entries(document, "consumers"):
                self.add(entry)

    @property
    def count(self) -> int:
        return len(self.identities)

    def add(self, entry: Mapping[str, Any]) -> _Consumer:
        consumer = _consumer(entry)
        self.identities.add(consumer.identity)
        for name in ("id", "username", "custom_id"):
            if isinstance(entry.get(name), str):
                self._by[name, entry[name]] = consumer
        return consumer

    def find(self, reference: Any) -> _Consumer:
        """Return who is meant; one that no file describes is known by what refers to it."""
        wanted: Mapping[str, Any] = {"username": reference, "id": reference}
        if isinstance(reference, dict):
            wanted = {"username": reference.get("name"), **reference}
        for name in ("id", "username", "custom_id"):
            found = self._by.get((name, _text(wanted.get(name))))
            if found is not None:
                return found
        return _consumer(wanted)


def _consumer(entry: Mapping[str, Any]) -> _Consumer:
    custom_id, username, kong_id = (_text(entry.get(name)) for name in ("custom_id", "username", "id"))
    external_id = custom_id or username or kong_id
    usable = 0 < len(external_id) <= MAX_NAME and external_id.isprintable()
    return _Consumer(
        identity=kong_id or username or custom_id,
        external_id=external_id,
        name=_clean(username or external_id) or external_id,
        problem="" if usable else "the consumer has no usable username or custom_id",
    )


def _credentials(
    documents: Sequence[Mapping[str, Any]], consumers: _Consumers
) -> Iterator[tuple[_Consumer, Mapping[str, Any]]]:
    for document in documents:
        for entry in _entries(document, "consumers"):
            nested = list(_entries(entry, "keyauth_credentials"))
            if nested:
                consumer = consumers.find({name: entry.get(name) for name in ("id", "username", "custom_id")})
                yield from ((consumer, credential) for credential in nested)
        for credential in _entries(document, "keyauth_credentials"):
            yield consumers.find(credential.get("consumer")), credential


def _read_key(credential: Mapping[str, Any], *, mode: str, now: datetime) -> tuple[ReadKey | None, str]:
    """Return the key, or None and what is wrong with it in words without it."""
    name = _key_name(credential)
    text = credential.get("key")
    if text is None:
        return None, f"{name}: there is no key in the file"
    if not isinstance(text, str):
        return None, f"{name}: the key is no text; put it into quotes"
    if _REFERENCE.search(text):
        return None, f"{name}: refers to a key that is elsewhere; resolve it first"
    if not _USABLE.fullmatch(text):
        return None, f"{name}: a key has 8 to 512 visible ASCII characters"
    own = parse_api_key(text)
    weak = len(text) < STRONG_LENGTH
    return ReadKey(
        key_hash=hash_api_key(text),
        name=name,
        mode=mode if own is None else own.value,
        last_characters=None if weak else text[-HINT_LENGTH:],
        expires_at=_expiry(credential.get("ttl"), now),
        ours=own is not None,
        weak=weak,
    ), ""


def _key_name(credential: Mapping[str, Any]) -> str:
    tags = credential.get("tags")
    if isinstance(tags, list):
        name = _clean(", ".join(tag for tag in tags if isinstance(tag, str)))
        if name:
            return name
    kong_id = credential.get("id")
    return _clean(f"key-auth {kong_id}") if isinstance(kong_id, str) else "key-auth"


def _expiry(ttl_seconds: Any, now: datetime) -> datetime | None:
    if isinstance(ttl_seconds, int | float) and ttl_seconds > 0:
        return now + timedelta(seconds=int(ttl_seconds))
    return None


def _refuse_ambiguous(accounts: Iterable[ReadAccount]) -> None:
    """One's custom id may be another's username: nobody can say whose account that is."""
    by_id: dict[str, list[ReadAccount]] = defaultdict(list)
    for account in accounts:
        by_id[account.external_id].append(account)
    for same in by_id.values():
        for account in same if len(same) > 1 else ():
            account.refused = account.refused or "another consumer has the same username or custom_id"


def _sorted_list(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return an Admin API's list as a document. It has one kind of thing; `next` says that it is only a part."""
    if document.get("next"):
        raise KongFileError(
            f"{path}: is one page of a list ('next' is set); fetch all, with ?size=1000 and offset"
        )
    entries = [entry for entry in document["data"] if isinstance(entry, dict)]
    kinds = Counter(_kind(entry) for entry in entries)
    if len(kinds) > 1 or "" in kinds:
        raise KongFileError(f"{path}: is no list of key-auths, consumers or plugins")
    return dict.fromkeys(kinds, entries) or {"consumers": []}


def _kind(entry: Mapping[str, Any]) -> str:
    if "key" in entry and "consumer" in entry:
        return "keyauth_credentials"
    if "config" in entry and "name" in entry:
        return "plugins"
    return "consumers" if "username" in entry or "custom_id" in entry else ""


def _entries(holder: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    found = holder.get(name)
    return (entry for entry in found if isinstance(entry, dict)) if isinstance(found, list) else iter(())


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _clean(text: str) -> str:
    return "".join(character for character in text if character.isprintable()).strip()[:MAX_NAME]
