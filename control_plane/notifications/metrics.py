"""What notifications says of itself to Prometheus."""

from prometheus_client import Counter, Gauge

SENT = Counter("km_mails_sent_total", "Mails that the SMTP server has taken.", ["kind"])
NOT_SENT = Counter(
    "km_mails_not_sent_total",
    "Mails that will not be tried again: refused, given up after days, or lost twice.",
    ["outcome"],
)
PUT_OFF = Counter("km_mail_failures_total", "Attempts that are made again later, by where they failed.", ["step"])
WAITING = Gauge("km_mails_waiting", "Mails that wait to be sent.")
OLDEST_SECONDS = Gauge("km_mails_oldest_seconds", "How long the oldest waiting mail has waited.")
FAILURES = Counter("km_mail_rounds_failed_total", "Rounds of the mail worker that failed.")
