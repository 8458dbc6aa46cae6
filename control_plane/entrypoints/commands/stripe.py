"""`km stripe`."""

import typer

from control_plane.entrypoints.commands import stripe_events

app = typer.Typer(no_args_is_help=True, help="Stripe: what it was told, what it tells, and whether both agree.")
app.add_typer(stripe_events.app, name="events")
app.command("resync")(stripe_events.resync)
