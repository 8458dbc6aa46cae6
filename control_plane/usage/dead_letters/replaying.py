"""A dead letter on the collector's path: what it comes to by now. Pure."""

from dataclasses import dataclass

from control_plane.usage.collect.batch_attribution import Attribution
from control_plane.usage.collect.columns import EventColumns
from control_plane.usage.collect.lines import decode_lines
from control_plane.usage.collect.storing import letters_of_lines
from control_plane.usage.store.dead_letters import StoredLetter


@dataclass(frozen=True, slots=True)
class Outcome:
    """The event that a letter is by now, or the reason why it is none."""

    letter: StoredLetter
    events: EventColumns
    problem: str = ""

    @property
    def account_id(self) -> str:
        return self.events.columns["account_id"][0] if len(self.events) else ""

    @property
    def event_id(self) -> str:
        # a request's id can be any text, which PostgreSQL's cannot
        return self.events.columns["event_id"][0].replace("\0", "") if len(self.events) else ""


def read_letter(letter: StoredLetter, attribution: Attribution, *, now_ms: int) -> Outcome:
    """Read a letter as the collector would read its line now."""
    lines, dead = decode_lines(
        letter.text.encode(), shipper_id=letter.shipper_id, segment=letter.segment, start_offset=0
    )
    events = attribution.events(lines, ingested_at_ms=now_ms, shipper=letter.shipper_id)
    for still_bad in (*dead, *letters_of_lines(events, letter.shipper_id)):
        return Outcome(letter, EventColumns(), still_bad.reason)
    if not len(events):
        return Outcome(letter, events, "it holds no usage line")
    return Outcome(letter, events)
