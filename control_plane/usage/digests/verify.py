"""What `km verify` checks: a customer's receipts against roots and proofs. Pure; needs no secret and no server."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from control_plane.foundation.clock import floor_hour, from_ms, to_ms
from control_plane.usage.digests.chain import NO_DIGEST, Digest, hash_digest
from control_plane.usage.digests.leaf import LeafError, decode_leaf, differences_from_receipt, hash_leaf
from control_plane.usage.digests.merkle import root_by_path
from gateway_contract.receipts import NOTE_PREFIX, Receipt, read_receipt

FORMAT = "km-verify-1"
HOUR_MS = 3_600_000


class ReceiptFileError(ValueError):
    """A line of the file is neither a receipt nor JSON with one; the message names the line."""


class EvidenceError(Exception):
    """Saved evidence cannot be read."""


@dataclass(frozen=True, slots=True)
class SavedReceipt:
    """A receipt as its owner kept it, with the status of the answer where that was kept, too."""

    text: str
    receipt: Receipt
    status: int | None = None

    @property
    def hour(self) -> datetime:
        """Return the hour that the call counts in."""
        return floor_hour(from_ms(self.receipt.decided_at_ms))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the server says of a span: links of the chain, proofs by event id, and why others have none."""

    digests: Sequence[Mapping[str, Any]]
    proofs: Mapping[str, Mapping[str, Any]]
    absent: Mapping[str, str]

    def as_json(self) -> str:
        """Return the text that `from_json` reads."""
        values = {"digests": list(self.digests), "proofs": dict(self.proofs), "absent": dict(self.absent)}
        return json.dumps({"format": FORMAT, **values}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read saved evidence.

        Raises:
            EvidenceError: the text is none.
        """
        try:
            values = json.loads(text)
            if values["format"] != FORMAT:
                raise EvidenceError(f"format is {values['format']!r}, not {FORMAT!r}")
            return cls(values["digests"], values["proofs"], values["absent"])
        except (ValueError, KeyError, TypeError) as error:
            raise EvidenceError("not what --save writes") from error


@dataclass(frozen=True, slots=True)
class TrustedDigest:
    """A link of the chain that its owner kept from an earlier time."""

    sequence: int
    digest: str


@dataclass(slots=True)
class Verdict:
    """What came out. Every list holds lines for people.

    `pending`: the server says that the hour is not sealed; `reopened` of these had a digest before, all the same.
    """

    verified: int = 0
    pending: int = 0
    reopened: int = 0
    voided: int = 0
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    chain: list[str] = field(default_factory=list)
    digests: int = 0
    events_without_receipt: int = 0
    last_digest: str = ""
    last_sequence: int = 0

    @property
    def is_sound(self) -> bool:
        return not (self.missing or self.wrong or self.chain)


def read_receipts(lines: Iterable[str]) -> list[SavedReceipt]:
    """Read saved receipts: one a line, or JSON lines with `receipt` and perhaps `status`; each call once.

    Blank lines and notes of refusals that belong to nobody (`-.no_key`) are passed over.

    Raises:
        ReceiptFileError: a line is neither.
    """
    found: dict[str, SavedReceipt] = {}
    for number, line in enumerate(lines, 1):
        text, status = line.strip(), None
        if text.startswith("{"):
            text, status = _from_json(text, number)
        if not text or text.startswith(NOTE_PREFIX):
            continue
        receipt = read_receipt(text)
        if receipt is None:
            raise ReceiptFileError(f"line {number}: not a receipt: {text[:40]!r}")
        found[receipt.event_id] = SavedReceipt(text, receipt, status)
    return list(found.values())


def verify(
    receipts: Sequence[SavedReceipt], evidence: Evidence, *, trusted: TrustedDigest | None = None
) -> Verdict:
    """Check receipts against what the server says of them, and its chain against a link kept from before."""
    verdict = Verdict()
    links = _check_chain(evidence.digests, verdict)
    newest = _newest(links.values())
    if trusted is not None:
        _check_trusted(evidence.digests, trusted, verdict)
    matched: dict[str, int] = {}
    for saved in receipts:
        event_id = saved.receipt.event_id
        proof = evidence.proofs.get(event_id)
        if proof is not None:
            problems = _check_proof(saved, proof, links, newest)
            verdict.wrong += [f"{event_id}: {problem}" for problem in problems]
            if not problems:
                verdict.verified += 1
                verdict.voided += "voided" in decode_leaf(proof["leaf"]).flags
            digest = str(proof["digest"]["digest"])
            matched[digest] = matched.get(digest, 0) + 1
        elif evidence.absent.get(event_id) == "not_sealed":
            verdict.pending += 1
            verdict.reopened += saved.hour in newest
        else:
            verdict.missing.append(f"{event_id}: call of {_moment(saved.receipt)}, not in usage")
    verdict.events_without_receipt = sum(
        int(link["events"]) - matched.get(str(link["digest"]), 0) for link in _latest(evidence.digests, receipts)
    )
    return verdict


def _check_trusted(links: Sequence[Mapping[str, Any]], trusted: TrustedDigest, verdict: Verdict) -> None:
    found = [str(link["digest"]) for link in links if int(link["sequence"]) == trusted.sequence]
    if found != [trusted.digest]:
        verdict.chain.append(f"digest {trusted.sequence}: is not the one that you kept")


def _check_chain(links: Sequence[Mapping[str, Any]], verdict: Verdict) -> dict[str, Digest]:
    """Check each link, and that each names the one before; return those that are sound by their hashes."""
    sound: dict[str, Digest] = {}
    before: Digest | None = None
    before_hash = ""
    for raw in sorted(links, key=lambda link: int(link["sequence"])):
        link = _digest(raw)
        name = f"digest {link.sequence} of {link.hour.isoformat()}"
        if hash_digest(link) != raw["digest"]:
            verdict.chain.append(f"{name}: is not the hash of what it says")
            continue
        if before is not None and link.account_id != before.account_id:
            verdict.chain.append(f"{name}: is of another account")
            continue
        if before is not None and link.sequence == before.sequence:
            verdict.chain.append(f"{name}: there are two with this number")
            continue
        if link.sequence == 1 and link.previous != NO_DIGEST:
            verdict.chain.append(f"{name}: is the first, but names another before it")
        if before is not None and link.sequence == before.sequence + 1 and link.previous != before_hash:
            verdict.chain.append(f"{name}: does not name the digest before it")
        if before is not None and link.sequence > before.sequence + 1:
            verdict.chain.append(f"{name}: the {link.sequence - before.sequence - 1} before it are left out")
        sound[str(raw["digest"])] = link
        before, before_hash = link, str(raw["digest"])
    verdict.digests = len(sound)
    verdict.last_digest = before_hash
    verdict.last_sequence = before.sequence if before else 0
    return sound


def _newest(links: Iterable[Digest]) -> dict[datetime, Digest]:
    """Return the link of the highest revision of each hour: what counts of it."""
    return {link.hour: link for link in sorted(links, key=lambda one: one.revision)}


def _check_proof(
    saved: SavedReceipt, proof: Mapping[str, Any], links: Mapping[str, Digest], newest: Mapping[datetime, Digest]
) -> list[str]:
    try:
        leaf = decode_leaf(proof["leaf"])
        path = [bytes.fromhex(part) for part in proof["path"]]
    except (LeafError, ValueError) as error:
        return [f"its proof cannot be read: {error}"]
    problems = differences_from_receipt(leaf, saved.receipt)
    if saved.status is not None and leaf.status != saved.status:
        problems.append(f"status: {saved.status} by the answer, {leaf.status} in usage")
    link, size = links.get(str(proof["digest"]["digest"])), int(proof["size"])
    if link is None:
        problems.append("its digest is not in the chain")
    elif (link.account_id, link.hour) != (leaf.account, saved.hour):
        problems.append("its digest is of another account or hour")
    elif link is not newest[link.hour]:
        newer = newest[link.hour].revision
        problems.append(f"its proof is of revision {link.revision}, but revision {newer} counts: ask again")
    found = root_by_path(hash_leaf(proof["leaf"]), index=int(proof["index"]), size=size, path=path)
    if found is None or (link is not None and (found.hex(), size) != (link.root, link.events)):
        problems.append("its path does not lead to the sealed root: usage was changed after it was sealed")
    return problems


def _latest(links: Sequence[Mapping[str, Any]], receipts: Sequence[SavedReceipt]) -> list[Mapping[str, Any]]:
    """Return the link of the highest revision of each hour from the first receipt's to the last one's."""
    moments = [saved.receipt.decided_at_ms for saved in receipts]
    latest: dict[str, Mapping[str, Any]] = {}
    for link in sorted(links, key=lambda one: int(one["revision"])):
        start_ms = to_ms(datetime.fromisoformat(str(link["hour"])))
        if moments and min(moments) - HOUR_MS < start_ms <= max(moments):
            latest[str(link["hour"])] = link
    return list(latest.values())


def _digest(raw: Mapping[str, Any]) -> Digest:
    return Digest(
        account_id=str(raw["account_id"]),
        sequence=int(raw["sequence"]),
        hour=datetime.fromisoformat(str(raw["hour"])),
        revision=int(raw["revision"]),
        events=int(raw["events"]),
        root=str(raw["root"]),
        previous=str(raw["previous"]),
    )


def _from_json(text: str, number: int) -> tuple[str, int | None]:
    try:
        values = json.loads(text)
        status = values.get("status")
        return str(values["receipt"]), None if status is None else int(status)
    except (ValueError, KeyError, TypeError) as error:
        raise ReceiptFileError(f"line {number}: JSON needs a field `receipt`, and a whole `status`") from error


def _moment(receipt: Receipt) -> str:
    return from_ms(receipt.decided_at_ms).isoformat(timespec="milliseconds")
