"""What is wrong with a configuration, as one sentence for people and as a tree for programs."""

from typing import Any

Path = tuple[str | int, ...]


class ConfigurationInvalidError(Exception):
    """A configuration was refused whole. `sentences` name entity and field; `fields` is shaped as the document."""

    def __init__(self, sentences: list[str], fields: dict[str, Any]) -> None:
        super().__init__("declarative config is invalid: " + "; ".join(sentences))
        self.sentences = sentences
        self.fields = fields

    @classmethod
    def of_sentence(cls, sentence: str) -> "ConfigurationInvalidError":
        return cls([sentence], {"error": sentence})


class Problems:
    """Collects what is wrong, so that one answer names everything."""

    def __init__(self) -> None:
        self._sentences: list[str] = []
        self._fields: dict[str, Any] = {}

    def add(self, path: Path, label: str, field: str, error: Any) -> None:
        """`error` is a sentence, or such sentences nested in maps and lists as the data is."""
        for name, sentence in _flat(field, error):
            self._sentences.append(
                f"{label}: field '{name}' {sentence}"
                if sentence.startswith("is not ")
                else f"{label}: field '{name}': {sentence}"
            )
        node: Any = self._fields
        for position, step in enumerate(path):
            following = path[position + 1] if position + 1 < len(path) else None
            node = _child(node, step, [] if isinstance(following, int) else {})
        node[field] = error

    def raise_if_any(self) -> None:
        if self._sentences:
            raise ConfigurationInvalidError(self._sentences, self._fields)


def _flat(field: str, error: Any) -> list[tuple[str, str]]:
    if isinstance(error, dict):
        return [pair for key, value in error.items() for pair in _flat(f"{field}.{key}", value)]
    if isinstance(error, list):
        found = [(index, value) for index, value in enumerate(error) if value is not None]
        return [pair for index, value in found for pair in _flat(f"{field}[{index}]", value)]
    return [(field, str(error))]


def _child(node: Any, step: str | int, empty: Any) -> Any:
    if isinstance(step, int):
        while len(node) <= step:
            node.append(None)
        if node[step] is None:
            node[step] = empty
        return node[step]
    return node.setdefault(step, empty)
