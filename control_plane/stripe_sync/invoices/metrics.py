"""What the making of Stripe's invoices tells operators."""

from prometheus_client import Counter, Gauge

ADJUSTMENTS = Counter(
    "km_stripe_adjustments_total", "Adjustments of Stripe's invoices, by cause and outcome", ["cause", "outcome"]
)
TASKS = Counter("km_stripe_invoice_tasks_total", "Drafts of Stripe's seen to, by outcome", ["outcome"])
HELD = Gauge("km_stripe_invoices_held", "Drafts that Stripe does not make final by itself, because we hold them")
ALARMS = Counter(
    "km_stripe_invoice_alarms_total", "What no rule of ours mends on Stripe's invoices, by kind", ["kind"]
)
CHECKS = Counter(
    "km_stripe_invoice_checks_total", "Final invoices of Stripe's compared with what was expected", ["outcome"]
)
FAILURES = Counter(
    "km_stripe_invoice_failures_total", "Rounds that failed and were tried again, by what they did", ["worker"]
)
