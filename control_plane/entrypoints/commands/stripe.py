"""`km stripe`."""

import typer

from control_plane.entrypoints.commands import (
    stripe_events,
    stripe_invoices,
    stripe_setup,
    stripe_subscriptions,
    stripe_usage,
)

app = typer.Typer(no_args_is_help=True, help="Stripe: what it was told, what it tells, and whether both agree.")
app.add_typer(stripe_events.app, name="events")
app.add_typer(stripe_invoices.app, name="invoices")
app.add_typer(stripe_usage.app, name="usage")
app.command("resync")(stripe_events.resync)
app.command("setup")(stripe_setup.setup)
app.command("doctor")(stripe_setup.doctor)
app.command("sync")(stripe_setup.sync)
app.command("drift")(stripe_setup.drift)
app.command("portal")(stripe_subscriptions.portal)
