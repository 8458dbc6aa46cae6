"""The words of refusals in the caller's language: files of texts, and the choice by `Accept-Language`.

One TOML file for each language, named after its tag (`de.toml`, `pt-BR.toml`), with one table for each outcome.
An operator's files go over ours, text by text; what a language does not say is said in English.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import Any, TypeAlias

from gateway_contract.outcomes import NOT_DECIDED, Outcome
from kong_plugins.parts.bounded_map import BoundedMap
from kong_plugins.parts.settings import SettingsError

DEFAULT_LANGUAGE = "en"
_OWN_FILES = files("kong_plugins.parts") / "messages"
_TAG = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_QUALITY = re.compile(r"q=(0(\.\d{0,3})?|1(\.0{0,3})?)", re.IGNORECASE)
_MOST_RANGES = 20
_MOST_SUBTAGS = 10  # language tags have fewer; shortening a range of thousands step by step would take seconds
_LONGEST_REMEMBERED = 200

# the texts that an outcome has, and the names that a text may hold in braces
_LIMIT_NAMES = frozenset({"name", "limit"})
_ALWAYS: Mapping[str, frozenset[str]] = {"title": frozenset(), "detail": frozenset()}
_TEXTS: dict[str, Mapping[str, frozenset[str]]] = {
    outcome.value: _ALWAYS for outcome in Outcome if outcome not in {Outcome.SERVED, *NOT_DECIDED}
} | {
    Outcome.RATE_LIMITED.value: {
        **_ALWAYS,
        "detail_window": _LIMIT_NAMES | {"seconds"},
        "detail_at_once": _LIMIT_NAMES,
    },
    Outcome.QUOTA_EXCEEDED.value: {**_ALWAYS, "detail_period": _LIMIT_NAMES},
    Outcome.SPEND_CAP_REACHED.value: {**_ALWAYS, "detail_link": frozenset({"url"})},
}

_Texts: TypeAlias = dict[str, dict[str, str]]


class MessagesError(SettingsError):
    """A file of texts cannot be used; the message names the file and what is wrong in it."""


@dataclass(frozen=True, slots=True)
class Wording:
    """The texts of one outcome in one language: `title`, `detail`, and variants of the detail."""

    language: str
    texts: Mapping[str, str]


@dataclass(slots=True)
class Messages:
    """All languages by lower-case tag; `tags` holds each as it is written in `Content-Language`."""

    by_language: dict[str, _Texts]
    tags: dict[str, str]
    _chosen: BoundedMap[str, str] = field(default_factory=lambda: BoundedMap(512))

    def choose(self, accept_language: Any) -> str:
        """Return the language (lower case) for a request's `Accept-Language`; a repeated header is a list."""
        if not accept_language:
            return DEFAULT_LANGUAGE
        if isinstance(accept_language, list):
            accept_language = ",".join(str(one) for one in accept_language)
        if len(accept_language) > _LONGEST_REMEMBERED:
            return self._look_up(accept_language)
        chosen = self._chosen.get(accept_language)
        if chosen is None:
            chosen = self._look_up(accept_language)
            self._chosen.put(accept_language, chosen)
        return chosen

    def wording(self, outcome: Outcome, language: str) -> Wording:
        """Return the outcome's texts, in English where the language has none for it."""
        texts = self.by_language[language].get(outcome.value)
        if texts is None:
            language, texts = DEFAULT_LANGUAGE, self.by_language[DEFAULT_LANGUAGE][outcome.value]
        return Wording(self.tags[language], texts)

    def _look_up(self, accept_language: str) -> str:
        """RFC 4647, section 3.4: each range is shortened from its end until a language fits."""
        for wanted in _ranges_by_quality(accept_language):
            subtags = wanted.split("-")[:_MOST_SUBTAGS]
            while subtags:
                tag = "-".join(subtags)
                if tag in self.by_language:
                    return tag
                subtags.pop()
        return DEFAULT_LANGUAGE


def load_messages(directory: Path | None = None) -> Messages:
    """Load the texts that ship with the plugins and, over them, those of an operator's directory.

    Raises:
        MessagesError: the directory or a file in it cannot be read, or holds something that is no text of ours.
    """
    messages = Messages({}, {})
    for name in sorted(entry.name for entry in _OWN_FILES.iterdir() if entry.name.endswith(".toml")):
        _add(messages, name, (_OWN_FILES / name).read_bytes())
    if directory is not None:
        try:
            found = sorted(path for path in directory.iterdir() if path.suffix == ".toml")
            contents = [(path.name, path.read_bytes()) for path in found]
        except OSError as error:
            raise MessagesError(f"KM_MESSAGES_DIR: {error.strerror}: {error.filename}") from None
        for name, content in contents:
            _add(messages, name, content)
    return messages


def _add(messages: Messages, file_name: str, content: bytes) -> None:
    tag = file_name.removesuffix(".toml")
    if not _TAG.fullmatch(tag):
        raise MessagesError(f"KM_MESSAGES_DIR: {file_name}: the name is no language tag, such as pt-BR.toml")
    try:
        document = tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise MessagesError(f"KM_MESSAGES_DIR: {file_name}: not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise MessagesError(f"KM_MESSAGES_DIR: {file_name}: {error}") from None
    texts = messages.by_language.setdefault(tag.lower(), {})
    messages.tags.setdefault(tag.lower(), tag)
    for outcome, given in document.items():
        checked = _checked(outcome, given, where=f"KM_MESSAGES_DIR: {file_name}: [{outcome}]")
        under = texts.get(outcome) or messages.by_language.get(DEFAULT_LANGUAGE, {}).get(outcome, {})
        texts[outcome] = _own_variants(checked, under)


def _own_variants(given: dict[str, str], under: dict[str, str]) -> dict[str, str]:
    """Return the texts over those that stood there.

    A new `detail` does away with the variants of the old one: they would go on saying what the old one said.
    """
    kept = {name: text for name, text in under.items() if not ("detail" in given and name.startswith("detail_"))}
    return {**kept, **given}


def _checked(outcome: str, given: Any, *, where: str) -> dict[str, str]:
    if outcome not in _TEXTS:
        raise MessagesError(f"{where}: no such outcome")
    if not isinstance(given, dict):
        raise MessagesError(f"{where}: a table is required")
    for name, text in given.items():
        if name not in _TEXTS[outcome]:
            raise MessagesError(f"{where}: {name}: no such text; there are {', '.join(_TEXTS[outcome])}")
        if not isinstance(text, str) or not text.strip():
            raise MessagesError(f"{where}: {name}: a text is required")
        unknown = set(_names_in(text, where=f"{where}: {name}")) - _TEXTS[outcome][name]
        if unknown:
            raise MessagesError(f"{where}: {name}: nothing is known by the name {{{min(unknown)}}}")
    return given


def _names_in(text: str, *, where: str) -> Iterator[str]:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise MessagesError(f"{where}: {error}") from None
    for _, name, form, conversion in parsed:
        if name is not None:
            if form or conversion:
                raise MessagesError(f"{where}: {{{name}}} must stand alone")
            yield name


def _ranges_by_quality(accept_language: str) -> list[str]:
    """Return the language ranges, the most wanted first; those of quality 0 and unreadable ones are left out."""
    found: list[tuple[float, str]] = []
    for item in accept_language.split(",")[:_MOST_RANGES]:
        wanted, _, parameter = item.partition(";")
        match = _QUALITY.fullmatch(parameter.strip()) if parameter else None
        quality = 1.0 if not parameter else float(match[1]) if match else 0.0
        if quality:
            found.append((quality, wanted.strip().lower()))
    return [wanted for _, wanted in sorted(found, key=lambda one: -one[0])]
