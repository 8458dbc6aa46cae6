"""`km what-if`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import download, fail, get, pages, post
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_json, print_rows

app = typer.Typer(
    help="What other terms of a plan would have cost its customers in the last months.", no_args_is_help=True
)
FIELDS = ("id", "plan", "source", "months", "status", "error", "as_of", "created_by", "finished_at")
COLUMNS = ("id", "plan", "source", "months", "status", "created_at", "finished_at")
SUM_COLUMNS = (
    "currency",
    "subscriptions",
    "before.text",
    "after.text",
    "difference.text",
    "dearer",
    "cheaper",
    "same",
    "not_sold",
    "refused_units",
)
RESULT_COLUMNS = (
    "subscription_id",
    "account_name",
    "periods",
    "before.text",
    "after.text",
    "difference.text",
    "refused_units",
)
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]


@app.command("start")
def start(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="The plan's code.")],
    *,
    version: Annotated[
        int | None, typer.Option(metavar="N", help="A version of the plan in place of its draft.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The plan as a plan file has it, in place of its draft.")
    ] = None,
    months: Annotated[int, typer.Option(min=1, max=12, help="How many billing periods back.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Replay the last months under the plan's draft, or a version, or a plan file. `show` tells what came out."""
    if version is not None and file is not None:
        fail("say either --version or --file")
    source = "version" if version is not None else "plan_file" if file is not None else "draft"
    text = None
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            fail(f"{file}: {error.strerror}")
    body = {"plan": plan, "source": source, "version": version, "plan_file": text, "months": months}
    print_fields(post("/what-if", body), FIELDS, as_json=as_json)


@app.command("list")
def list_(
    *, at_most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 200, as_json: AsJson = False
) -> None:
    """List jobs, newest first."""
    print_rows(pages("/what-if", at_most=at_most), COLUMNS, as_json=as_json)


@app.command("show")
def show(job: JobArgument, *, as_json: AsJson = False) -> None:
    """Show a job: sums, winners and losers, and the subscriptions it would change most."""
    answer: dict[str, Any] = get(f"/what-if/{job}")
    if as_json:
        print_json(answer)
        return
    print_fields(answer, FIELDS)
    if answer["sums"]:
        typer.echo("\nBilling periods that are over, before discounts and taxes:")
        print_rows([{"currency": code, **sums} for code, sums in answer["sums"].items()], SUM_COLUMNS)
    if answer["largest"]:
        typer.echo("\nThe largest differences:")
        print_rows(answer["largest"], RESULT_COLUMNS)


@app.command("export")
def export(
    job: JobArgument,
    *,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to; JOB.csv if left out.")] = None,
) -> None:
    """Write what a job found into a CSV file, a line for each subscription."""
    target = to or Path(f"{job}.csv")
    download(f"/what-if/{job}/export", target)
    typer.echo(str(target))
