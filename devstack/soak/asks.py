"""What callers ask for: which answer of the upstream, how often, with whose key."""

from dataclasses import dataclass

from devstack.soak.ledger import KeyLife


@dataclass(frozen=True, slots=True)
class Answer:
    """What the upstream is asked to answer; the caller hangs up after so many seconds (0: never)."""

    status: int = 200
    wait_ms: int = 0
    tokens: int = 0
    hang_up_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to be sent. `key` is None for nobody's key; `presented` is then what stands in its header.

    With `replayed` the upstream says that it repeats an earlier answer.
    """

    key: KeyLife | None
    presented: str
    answer: Answer = Answer()
    replayed: bool = False


# each is drawn as often as another
Answers = tuple[Answer, ...]

PLAIN: Answers = (Answer(),)
MIXED: Answers = (
    *[Answer(tokens=3)] * 6,
    *[Answer(wait_ms=40)] * 3,
    Answer(201, tokens=17),
    Answer(404),
    Answer(500, tokens=5),
    Answer(503, wait_ms=20),
    Answer(wait_ms=700, tokens=2),
    Answer(wait_ms=600, tokens=4, hang_up_seconds=0.15),
    Answer(wait_ms=300, hang_up_seconds=0.05),
)
REPORTING: Answers = (Answer(tokens=20), Answer(tokens=7), Answer(tokens=13), Answer(), Answer(500, tokens=20))
# nobody hangs up: a call that was broken off goes on at the upstream, seen by nobody
SLOW: Answers = (Answer(wait_ms=150), Answer(wait_ms=400), Answer(wait_ms=700), Answer(503, wait_ms=300))
