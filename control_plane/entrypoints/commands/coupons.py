"""`km coupons`, `km promotion-codes` and `km founding`."""

from typing import Annotated, Any

import typer

from control_plane.entrypoints.commands.client import delete, get, pages, post, put
from control_plane.entrypoints.commands.output import AsJson, print_fields, print_rows

coupons = typer.Typer(help="Coupons: what can be taken off invoices.", no_args_is_help=True)
codes = typer.Typer(help="Promotion codes: what people type to get a coupon.", no_args_is_help=True)
founding = typer.Typer(help="The founding offer: a discount for the first ones who pay.", no_args_is_help=True)

COUPON_COLUMNS = (
    "code",
    "name",
    "percent",
    "amount.text",
    "duration",
    "count",
    "scope",
    "redemptions",
    "max_redemptions",
    "redeem_until",
    "archived_at",
)
COUPON_FIELDS = ("id", *COUPON_COLUMNS[:7], "plans", "api_products", *COUPON_COLUMNS[7:])
CODE_FIELDS = (
    "code",
    "coupon",
    "redemptions",
    "max_redemptions",
    "redeem_until",
    "first_time_only",
    "minimum.text",
    "archived_at",
)
FOUNDING_FIELDS = ("state", "percent", "months", "members", "max_accounts", "until", "opened_at", "closed_at")
CouponArgument = Annotated[str, typer.Argument(metavar="COUPON", help="The coupon's code.")]
TypedCode = Annotated[str, typer.Argument(metavar="CODE", help="What people type, such as SPRING26.")]
Name = Annotated[str, typer.Option(help="Stands on invoices.")]
Percent = Annotated[str | None, typer.Option(metavar="PERCENT", help="Per cent off, such as 20.")]
Amount = Annotated[str | None, typer.Option(metavar="AMOUNT", help="Off each billing period; with --currency.")]
Currency = Annotated[str | None, typer.Option(metavar="ISO", help="Of the amount.")]
Duration = Annotated[
    str, typer.Option(help="Billing periods that it holds for: once, periods, months or forever.")
]
Count = Annotated[int | None, typer.Option(min=1, help="How many periods or months.")]
Scope = Annotated[str, typer.Option(help="all, fixed or usage.")]
Plans = Annotated[list[str] | None, typer.Option("--plan", metavar="CODE", help="Only this plan; repeatable.")]
Products = Annotated[
    list[str] | None, typer.Option("--product", metavar="CODE", help="Only this API product; repeatable.")
]
Max = Annotated[int | None, typer.Option("--max", min=1, help="How often it can be redeemed.")]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="It can be redeemed before, RFC 3339.")]
Archived = Annotated[bool, typer.Option("--archived", help="Those that are not given any more, too.")]
AtMost = Annotated[int, typer.Option("--limit", min=1, help="How many at most.")]


@coupons.command("create")
def create_coupon(
    coupon: CouponArgument,
    *,
    name: Name,
    percent: Percent = None,
    amount: Amount = None,
    currency: Currency = None,
    duration: Duration = "once",
    count: Count = None,
    scope: Scope = "all",
    plan: Plans = None,
    product: Products = None,
    max_redemptions: Max = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Make a coupon: --percent, or --amount with --currency."""
    terms = _terms(name, percent, amount, currency, duration, count, scope, plan, product, max_redemptions, until)
    print_fields(post("/coupons", {"code": coupon, **terms}), COUPON_FIELDS, as_json=as_json)


@coupons.command("change")
def change_coupon(
    coupon: CouponArgument,
    *,
    name: Name,
    percent: Percent = None,
    amount: Amount = None,
    currency: Currency = None,
    duration: Duration = "once",
    count: Count = None,
    scope: Scope = "all",
    plan: Plans = None,
    product: Products = None,
    max_redemptions: Max = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Replace all terms of a coupon that nobody has redeemed yet."""
    terms = _terms(name, percent, amount, currency, duration, count, scope, plan, product, max_redemptions, until)
    given = {field: value for field, value in terms.items() if value is not None}
    print_fields(put(f"/coupons/{coupon}", given), COUPON_FIELDS, as_json=as_json)


@coupons.command("list")
def list_coupons(*, archived: Archived = False, at_most: AtMost = 50, as_json: AsJson = False) -> None:
    """List coupons, newest first."""
    print_rows(pages("/coupons", at_most=at_most, archived=archived), COUPON_COLUMNS, as_json=as_json)


@coupons.command("show")
def show_coupon(coupon: CouponArgument, *, as_json: AsJson = False) -> None:
    """Show a coupon, and what it has taken off so far."""
    found = get(f"/coupons/{coupon}")
    if not as_json:
        found["taken_off"] = [amount["text"] for amount in found["taken_off"]]
    print_fields(found, (*COUPON_FIELDS, "taken_off"), as_json=as_json)


@coupons.command("archive")
def archive_coupon(coupon: CouponArgument, *, as_json: AsJson = False) -> None:
    """Give a coupon, and its promotion codes, no more; discounts go on."""
    print_fields(post(f"/coupons/{coupon}/archive"), COUPON_FIELDS, as_json=as_json)


@codes.command("create")
def create_code(
    code: TypedCode,
    coupon: CouponArgument,
    *,
    max_redemptions: Max = None,
    until: Until = None,
    first_time_only: Annotated[
        bool, typer.Option("--first-time-only", help="Only for accounts that have not paid an invoice yet.")
    ] = False,
    minimum: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="Only for plans that cost so much a period; with --currency."),
    ] = None,
    currency: Currency = None,
    as_json: AsJson = False,
) -> None:
    """Make a code for a coupon; each account can redeem it once."""
    body: dict[str, Any] = {
        "code": code,
        "coupon": coupon,
        "max_redemptions": max_redemptions,
        "redeem_until": until,
        "first_time_only": first_time_only,
        "minimum_amount": minimum,
        "minimum_currency": currency,
    }
    print_fields(post("/promotion-codes", body), CODE_FIELDS, as_json=as_json)


@codes.command("list")
def list_codes(
    *,
    coupon: Annotated[str | None, typer.Option(metavar="CODE", help="Only codes of this coupon.")] = None,
    archived: Archived = False,
    at_most: AtMost = 50,
    as_json: AsJson = False,
) -> None:
    """List promotion codes, newest first."""
    found = pages("/promotion-codes", at_most=at_most, coupon=coupon, archived=archived)
    print_rows(found, CODE_FIELDS, as_json=as_json)


@codes.command("archive")
def archive_code(code: TypedCode, *, as_json: AsJson = False) -> None:
    """Take a code back: nobody can redeem it any more; discounts go on."""
    print_fields(post(f"/promotion-codes/{code}/archive"), CODE_FIELDS, as_json=as_json)


@founding.command("open")
def open_offer(
    *,
    percent: Annotated[str, typer.Option(metavar="PERCENT", help="Per cent off everything.")],
    months: Annotated[int, typer.Option(min=1, help="For how long, from the first period on.")] = 12,
    accounts: Annotated[int | None, typer.Option(min=1, help="For the first so many accounts.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="For those who start to pay before.")] = None,
    as_json: AsJson = False,
) -> None:
    """Welcome who starts to pay from now on as a founding member: --accounts, --until, or both."""
    body = {"percent": percent, "months": months, "max_accounts": accounts, "until": until}
    print_fields(post("/founding-offer", body), FOUNDING_FIELDS, as_json=as_json)


@founding.command("show")
def show_offer(*, as_json: AsJson = False) -> None:
    """Show the offer that is open, else the last one."""
    print_fields(get("/founding-offer"), FOUNDING_FIELDS, as_json=as_json)


@founding.command("close")
def close_offer(*, as_json: AsJson = False) -> None:
    """Close the offer; members keep their discount."""
    print_fields(delete("/founding-offer"), FOUNDING_FIELDS, as_json=as_json)


def _terms(  # noqa: PLR0917 - as many as the options of `create` and `change`
    name: str,
    percent: str | None,
    amount: str | None,
    currency: str | None,
    duration: str,
    count: int | None,
    scope: str,
    plan: list[str] | None,
    product: list[str] | None,
    max_redemptions: int | None,
    until: str | None,
) -> dict[str, Any]:
    return {
        "name": name,
        "percent": percent,
        "amount": amount,
        "currency": currency,
        "duration": duration,
        "count": count,
        "scope": scope,
        "plans": plan or [],
        "api_products": product or [],
        "max_redemptions": max_redemptions,
        "redeem_until": until,
    }
