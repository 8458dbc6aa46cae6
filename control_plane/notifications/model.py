"""Kinds and states of mails, how long to wait, and what an outcome means. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from email.errors import MessageError
from email.headerregistry import Address
from email.utils import parseaddr
from enum import StrEnum
from typing import Final, Literal

from control_plane.foundation.errors import ConflictError, ValidationFailedError

TlsMode = Literal["starttls", "tls", "none"]

# an answer to a question that nobody asks any more helps nobody: what is older is not sent
GIVE_UP_AFTER: Final = timedelta(days=3)
FIRST_PAUSE: Final = timedelta(minutes=1)
LONGEST_PAUSE: Final = timedelta(hours=4)
# after a lost connection nobody knows whether a mail went out: it is sent once more at most
MAX_CUT_OFF: Final = 1
_PERMANENT: Final = 500


class MailKind(StrEnum):
    """One template each."""

    PAYMENT_FAILED = "payment_failed"
    PAYMENT_ACTION_REQUIRED = "payment_action_required"
    PAYMENT_REMINDER = "payment_reminder"
    PAYMENT_LAST_DAY = "payment_last_day"
    ACCESS_BLOCKED = "access_blocked"
    ACCESS_REDUCED = "access_reduced"
    PAYMENT_RECOVERED = "payment_recovered"
    SUBSCRIPTION_ENDED = "subscription_ended"
    TRIAL_ENDING = "trial_ending"
    TEST = "test"


class MailState(StrEnum):
    """`waiting`: not sent yet, or being sent. `refused`: it will never be taken. `given_up`: nobody took it
    for days. `unknown`: the connection was lost twice, so that it may have arrived.
    """

    WAITING = "waiting"
    SENT = "sent"
    REFUSED = "refused"
    GIVEN_UP = "given_up"
    UNKNOWN = "unknown"


class MailNotResendableError(ConflictError):
    """A mail that waits is sent anyway."""

    def __init__(self, mail_id: str) -> None:
        super().__init__("mail_waiting", f"Mail {mail_id} waits to be sent; there is nothing to send again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Branding:
    """What every mail says of its sender. Empty: left out."""

    name: str = "kong-monetize"
    support_email: str = ""
    payment_note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpConfig:
    """Where mails are handed in. `sender` is the From address, with a name or without."""

    host: str
    port: int = 587
    tls: TlsMode = "starttls"
    username: str = ""
    password: str = ""
    ca_file: str = ""
    timeout_seconds: float = 30.0
    sender: str

    def __repr__(self) -> str:
        return f"SmtpConfig({self.host}:{self.port}, tls={self.tls}, sender={self.sender})"


def pause_after(attempts: int) -> timedelta:
    """Return how long to wait after so many attempts: a minute, doubled each time, 4 hours at most."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(max(attempts, 1) - 1, 10)))


def is_permanent(code: int) -> bool:
    """Say whether an SMTP server's answer to a recipient or a text stands for good (RFC 5321: 5yz)."""
    return code >= _PERMANENT


def parse_address(text: str, *, field: str = "email") -> Address:
    """Return a mail address, with its name where it has one (`Weather API <billing@example.com>`).

    Raises:
        ValidationFailedError: it is none.
    """
    name, spec = parseaddr(text)
    try:
        address = Address(display_name=name, addr_spec=spec)
    except (ValueError, IndexError, MessageError) as error:
        raise ValidationFailedError(field, "must be an email address") from error
    if not (text.isprintable() and address.username and address.domain):
        raise ValidationFailedError(field, "must be an email address")
    return address


def message_id(mail_id: str, *, sending: int, domain: str) -> str:
    """Return a Message-ID: the same however often one sending is attempted, another when it is sent again."""
    return f"<{mail_id}.{sending}@{domain}>"
