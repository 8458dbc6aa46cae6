"""`km`: starts the processes, and speaks to a running server.

Other packages add commands through entry points of the group `km.commands`; each names a function
`register(app: typer.Typer) -> None`. One that fails to load is named on stderr and left out.
"""

import os
import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated

import typer

from control_plane.entrypoints.commands import (
    accounts,
    audit,
    balance,
    billing,
    billing_profile,
    coupons,
    database,
    disputes,
    dunning,
    events,
    exports,
    gateway,
    ingest,
    keys,
    mail,
    maintenance,
    meters,
    plan_moves,
    plans,
    prepaid_credits,
    processes,
    products,
    reconcile,
    referrals,
    requests,
    sinks,
    stripe,
    stripe_subscriptions,
    subscriptions,
    tax_rates,
    tokens,
    usage,
    verify,
    what_ifs,
)
from control_plane.entrypoints.commands.client import DEFAULT_URL, target

GROUP = "km.commands"
FAILED = 1


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if wanted:
        typer.echo(f"kong-monetize {version('kong-monetize')}")
        raise typer.Exit


def _options(
    url: Annotated[str, typer.Option(envvar="KM_URL", help="Address of the server.")] = DEFAULT_URL,
    *,
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    """Turn routes on a Kong gateway into a paid API product.

    Commands other than serve, api, worker and db speak to a running server: KM_URL names it, KM_TOKEN is the
    token. Exit codes: 1 failed, 2 wrong usage.
    """
    target.url = url.rstrip("/")


def create_cli(*, own_only: bool = False) -> typer.Typer:
    """Return the program, with the commands of other installed packages unless `own_only`."""
    app = typer.Typer(
        name="km", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, callback=_options
    )
    app.command("serve")(processes.serve)
    app.command("api")(processes.api)
    app.command("worker")(processes.worker)
    app.add_typer(database.app, name="db")
    app.add_typer(accounts.app, name="accounts")
    app.add_typer(products.app, name="products")
    app.add_typer(plans.app, name="plans")
    app.add_typer(plan_moves.app, name="plan-moves")
    app.add_typer(what_ifs.app, name="what-if")
    app.add_typer(meters.app, name="meters")
    app.add_typer(subscriptions.app, name="subscriptions")
    app.add_typer(keys.app, name="keys")
    app.add_typer(usage.app, name="usage")
    app.add_typer(events.app, name="events")
    app.command("ingest")(ingest.ingest)
    app.add_typer(requests.app, name="requests")
    app.add_typer(exports.app, name="exports")
    app.add_typer(disputes.app, name="disputes")
    app.add_typer(sinks.app, name="sinks")
    app.add_typer(billing.app, name="invoices")
    app.add_typer(balance.app, name="balance")
    app.add_typer(billing_profile.app, name="billing-profile")
    app.add_typer(prepaid_credits.app, name="credits")
    app.add_typer(coupons.coupons, name="coupons")
    app.add_typer(coupons.codes, name="promotion-codes")
    app.add_typer(coupons.founding, name="founding")
    app.add_typer(referrals.app, name="referrals")
    app.add_typer(tax_rates.app, name="tax-rates")
    app.add_typer(dunning.app, name="dunning")
    app.add_typer(mail.app, name="mail")
    app.add_typer(stripe.app, name="stripe")
    app.add_typer(stripe_subscriptions.checkouts, name="checkouts")
    app.add_typer(gateway.app, name="gateway")
    app.add_typer(tokens.app, name="tokens")
    app.command("audit")(audit.audit)
    app.command("verify")(verify.verify)
    app.command("reconcile")(reconcile.reconcile)
    app.command("rebuild")(maintenance.rebuild)
    for entry_point in () if own_only else entry_points(group=GROUP):
        _load(app, entry_point)
    return app


def _names_own_command(arguments: list[str]) -> bool:
    """Say whether the words ask for a command of ours, so that other packages need not be imported."""
    own = create_cli(own_only=True)
    names = {command.name for command in own.registered_commands} | {group.name for group in own.registered_groups}
    return any(word in names for word in arguments[:3])


def _load(app: typer.Typer, entry_point: EntryPoint) -> None:
    try:
        entry_point.load()(app)
    except Exception as error:  # noqa: BLE001 - another package's fault must not take km down
        typer.echo(f"km: commands of {entry_point.value} left out: {error!r}", err=True)


def main() -> None:
    """Run `km`."""
    try:
        create_cli(own_only=_names_own_command(sys.argv[1:]))()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
