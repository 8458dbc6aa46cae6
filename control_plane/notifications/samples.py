"""What each kind of mail may say, to look at and to test with."""

from collections.abc import Mapping
from typing import Any, Final

from control_plane.notifications.model import MailKind

_INVOICES = [
    {
        "number": "INV-000042",
        "amount": {"amount_minor": 19900, "currency": "USD"},
        "due_at": "2026-11-01T00:00:00+00:00",
    }
]
_UNPAID: Final[Mapping[str, Any]] = {
    "product": "Weather API",
    "plan": "Growth",
    "total": {"amount_minor": 19900, "currency": "USD"},
    "invoices": _INVOICES,
    "ends_at": "2026-11-15T09:00:00+00:00",
    "after": "block",
    "free_plan": "Free",
    "pay_url": "https://pay.example.com/invoice/in_42",
    "next_attempt": "2026-11-04T09:00:00+00:00",
}
SAMPLE_ACCOUNT: Final = "Acme Weather Ltd"
SAMPLES: Final[Mapping[MailKind, Mapping[str, Any]]] = {
    MailKind.PAYMENT_FAILED: _UNPAID,
    MailKind.PAYMENT_ACTION_REQUIRED: _UNPAID,
    MailKind.PAYMENT_REMINDER: {**_UNPAID, "after": "free"},
    MailKind.PAYMENT_LAST_DAY: {**_UNPAID, "after": "free"},
    MailKind.ACCESS_BLOCKED: _UNPAID,
    MailKind.ACCESS_REDUCED: {**_UNPAID, "after": "free"},
    MailKind.PAYMENT_RECOVERED: {"product": "Weather API", "plan": "Growth", "was": "blocked"},
    MailKind.SUBSCRIPTION_ENDED: {"product": "Weather API", "plan": "Growth", "free_plan": "Free"},
    MailKind.TRIAL_ENDING: {
        "product": "Weather API",
        "plan": "Growth",
        "ends_at": "2026-11-15T09:00:00+00:00",
        "goes_on": True,
        "price": {"amount_minor": 19900, "currency": "USD"},
        "interval": "month",
    },
    MailKind.TEST: {"asked_at": "2026-11-01T09:00:00+00:00"},
}
