"""Just before a period ends, its preview shows the lines that its invoices come to, to the cent."""

from datetime import timedelta

from tests.control_plane.billing.invoices.billing_kit import (
    DAY,
    FEB_1,
    GROWTH,
    HOUR,
    JAN_1,
    MAR_1,
    Billing,
    commitment,
    flat,
    overage,
    per_unit,
    priced,
    setup_fee,
)

TIERS = [
    {"up_to": 1_000, "unit_amount": "0.002", "flat_amount": "3.33"},
    {"up_to": None, "unit_amount": "0.0013"},
]
MODELS = {
    "flat": (flat("49.00"),),
    "per-unit": (per_unit("0.00123"),),
    "overage": (flat("10.00"), overage("0.0015", 900)),
    "graduated": (priced("graduated", tiers=TIERS),),
    "volume": (priced("volume", tiers=TIERS),),
    "package": (priced("package", size=100, amount="0.37"),),
    "percentage": (priced("percentage", "cents", percent="2.9"),),
    "committed": (per_unit("0.001"), commitment("20.00")),
    "set-up": (setup_fee("99.00"), flat("5.00")),
}
LAST_MOMENT = FEB_1 - timedelta(milliseconds=1)


async def lines_of_january(billing: Billing, customer) -> dict[str, int]:
    """What all invoices charge for January, by charge."""
    charged: dict[str, int] = {}
    for invoice in await billing.invoices(customer):
        for line in invoice.lines:
            if line.period_start == JAN_1:
                key = f"{line.details['plan']} {line.kind} {line.meter}"
                charged[key] = charged.get(key, 0) + line.amount_minor
    return {key: amount for key, amount in charged.items() if amount}


def previewed(found) -> dict[str, int]:
    return {
        f"{one.plan_code} {one.kind} {one.meter}": one.line.amount_minor
        for one in found.lines
        if one.line.amount_minor
    }


class TestPreview:
    async def test_equals_the_invoices_of_the_period_for_every_model(self, billing: Billing):
        customers = {}
        for code, prices in MODELS.items():
            await billing.plan(code, prices=prices)
            customers[code] = await billing.customer(code)
        await billing.close(JAN_1)
        for customer in customers.values():
            await billing.use(customer, 1_234, at=JAN_1 + 3 * DAY, billable_dimensions={"cents": 123_457})
            await billing.use(customer, 777, at=LAST_MOMENT)
        previews = {code: await billing.preview(one, now=LAST_MOMENT) for code, one in customers.items()}
        await billing.close(FEB_1)
        await billing.close(FEB_1 + HOUR)
        for code, customer in customers.items():
            assert previewed(previews[code]) == await lines_of_january(billing, customer), code
            assert previews[code].total_minor > 0, code
            past = await billing.preview(customer, now=MAR_1, period_start=JAN_1)
            assert previewed(past) == previewed(previews[code]), code

    async def test_equals_them_after_a_year_of_changes_within_one_month(self, billing: Billing):
        await billing.plan()
        await billing.plan("growth", **GROWTH)
        await billing.plan("boost", kind="add_on", prices=(flat("7.00"), setup_fee("20.00")), quota_units=1_000)
        customer = await billing.customer()
        await billing.close(JAN_1)
        await billing.use(customer, 70_000, at=JAN_1 + DAY)
        await billing.add_on(customer, "boost", quantity=2, now=JAN_1 + 5 * DAY)
        await billing.close(JAN_1 + 5 * DAY)
        await billing.change_plan(customer, "growth", now=JAN_1 + 10 * DAY)
        await billing.close(JAN_1 + 10 * DAY)
        await billing.use(customer, 501_000, at=JAN_1 + 11 * DAY)
        await billing.set_status(customer, "paused", now=JAN_1 + 20 * DAY)
        await billing.close(JAN_1 + 20 * DAY)
        await billing.set_status(customer, "active", now=JAN_1 + 25 * DAY)
        await billing.close(JAN_1 + 25 * DAY)
        await billing.change_plan(customer, "starter", now=JAN_1 + 28 * DAY)
        await billing.close(JAN_1 + 28 * DAY)
        preview = await billing.preview(customer, now=LAST_MOMENT)
        await billing.close(FEB_1)
        await billing.close(FEB_1 + HOUR)
        assert previewed(preview) == await lines_of_january(billing, customer)
        assert [line.kind for line in preview.lines if line.plan_code == "boost"] == ["recurring", "setup_fee"]
