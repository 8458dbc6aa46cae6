"""`km invoices`, put together from its parts."""

import typer

from control_plane.entrypoints.commands import (
    forecasts,
    invoice_drafts,
    invoice_payments,
    invoice_reading,
    invoices,
)

app = typer.Typer(help="Invoices: previews, drafts, documents, payments, credit notes.", no_args_is_help=True)
for part in (invoice_reading.app, invoices.app, forecasts.app, invoice_drafts.app, invoice_payments.app):
    app.add_typer(part)
