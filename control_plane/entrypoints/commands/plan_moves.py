"""`km plan-moves`."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import get, pages, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows

app = typer.Typer(help="Moving many subscriptions to a plan version.", no_args_is_help=True)
COLUMNS = ("id", "status", "from_plan", "to_plan", "to_version", "timing", "at", "subscriptions", "to_tell")
FIELDS = (
    "id",
    "status",
    "from_plan",
    "from_versions",
    "to_plan",
    "to_version",
    "timing",
    "at",
    "notice_days",
    "message",
    "created_by",
    "created_at",
    "finished_at",
    "subscriptions",
    "to_tell",
    "tell_from",
)
TOTAL_COLUMNS = (
    "currency",
    "recurring_before.text",
    "recurring_after.text",
    "with_use_before.text",
    "with_use_after.text",
    "difference.text",
)
PREVIEW_COLUMNS = (
    "subscription_id",
    "account_name",
    "from_version",
    "effective_at",
    "with_use_before.text",
    "with_use_after.text",
    "difference.text",
    "setup_fee.text",
    "cannot",
)
ITEM_COLUMNS = ("subscription_id", "account_name", "status", "effective_at", "tell_by", "told_at", "reason")
MoveArgument = Annotated[str, typer.Argument(metavar="MOVE", help="The move's id.")]
FromPlan = Annotated[str, typer.Argument(metavar="PLAN", help="The plan to move from.")]
ToPlan = Annotated[
    str | None, typer.Option("--to", metavar="PLAN", help="Whose version on sale to move to; the same plan.")
]
Versions = Annotated[
    list[int] | None, typer.Option("--version", metavar="N", help="Only from this version; may be repeated.")
]
At = Annotated[str, typer.Option(metavar="TIME", help="The first moment to move at, 2026-03-01T00:00:00Z.")]
Timing = Annotated[str, typer.Option(help="period_end: at each one's first period end from then on; date: then.")]
NoticeDays = Annotated[int, typer.Option(min=0, help="How many days before customers must be told.")]


@app.command("preview")
def preview(
    plan: FromPlan,
    *,
    at: At,
    to: ToPlan = None,
    version: Versions = None,
    timing: Timing = "period_end",
    notice_days: NoticeDays = 30,
    as_json: AsJson = False,
) -> None:
    """Show who would be moved, what it would cost them each month, and who cannot be moved. Changes nothing."""
    body = _body(plan, to=to, versions=version, timing=timing, at=at, notice_days=notice_days)
    answer = post("/plan-moves/preview", body)
    if as_json:
        print_json(answer)
        return
    typer.echo(
        f"{answer['movable']:,} of {answer['subscriptions']:,} subscriptions can move to"
        f" {answer['to_plan']} version {answer['to_version']}\n"
    )
    _print_totals(answer)
    print_rows([_previewed(item) for item in answer["items"]], PREVIEW_COLUMNS)


@app.command("schedule")
def schedule(
    plan: FromPlan,
    *,
    at: At,
    to: ToPlan = None,
    version: Versions = None,
    timing: Timing = "period_end",
    notice_days: NoticeDays = 30,
    message: Annotated[str, typer.Option(help="Added to each notice.")] = "",
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="SUBSCRIPTION", help="Who stays; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Move all who are on the plan's versions now; `exclude` lets single ones out later, too."""
    body = _body(plan, to=to, versions=version, timing=timing, at=at, notice_days=notice_days)
    reasons = dict.fromkeys(exclude or (), "excluded when the move was scheduled")
    _print_move(post("/plan-moves", {**body, "message": message, "exclude": reasons}), as_json=as_json)


@app.command("list")
def list_(
    *, at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 200, as_json: AsJson = False
) -> None:
    """List moves, newest first."""
    found = [_counted(move) for move in pages("/plan-moves", at_most=at_most)]
    print_rows(found, COLUMNS, as_json=as_json)


@app.command("show")
def show(move: MoveArgument, *, as_json: AsJson = False) -> None:
    """Show a move, and what it comes to each month."""
    _print_move(get(f"/plan-moves/{move}"), as_json=as_json)


@app.command("cancel")
def cancel(move: MoveArgument, *, as_json: AsJson = False) -> None:
    """Take back what has not begun yet."""
    _print_move(post(f"/plan-moves/{move}/cancel"), as_json=as_json)


@app.command("exclude")
def exclude(
    move: MoveArgument,
    subscription: Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="The subscription's id.")],
    *,
    reason: Annotated[str, typer.Option(help="Why it stays.")] = "the customer objects",
    as_json: AsJson = False,
) -> None:
    """Let a subscription whose customer objects stay as it is."""
    body = {"subscription_id": subscription, "reason": reason}
    _print_move(post(f"/plan-moves/{move}/exclude", body), as_json=as_json)


@app.command("report")
def report(
    move: MoveArgument,
    *,
    status: Annotated[
        str | None, typer.Option(help="Only those: moved, skipped, failed, planned, waiting, excluded, canceled.")
    ] = None,
    at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """List the subscriptions of a move with what became of them, and by when who must be told."""
    found = pages(f"/plan-moves/{move}/subscriptions", at_most=at_most, status=status)
    print_rows(found, ITEM_COLUMNS, as_json=as_json)


def _body(
    plan: str, *, to: str | None, versions: list[int] | None, timing: str, at: str, notice_days: int
) -> dict[str, Any]:
    return {
        "from_plan": plan,
        "from_versions": versions or None,
        "to_plan": to,
        "timing": timing,
        "at": at,
        "notice_days": notice_days,
    }


def _print_move(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    print_fields(_counted(answer), FIELDS)
    typer.echo()
    _print_totals(answer)


def _counted(move: dict[str, Any]) -> dict[str, Any]:
    counts = ", ".join(f"{count} {status}" for status, count in move["counts"].items())
    return {**move, "subscriptions": counts}


def _print_totals(answer: dict[str, Any]) -> None:
    if answer["totals"]:
        typer.echo("Each month, without add-ons, discounts and taxes:")
        print_rows([{"currency": code, **one} for code, one in answer["totals"].items()], TOTAL_COLUMNS)
        typer.echo()


def _previewed(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, **(item["cost"] or {}), "cannot": item["reason"] or None}
