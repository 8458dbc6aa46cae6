"""Usage: what is refused at once, what is only told later, and what is counted."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import stripe

from devstack.stripe.embedded import EmbeddedStripe

HOUR, DAY = 3_600, 86_400
Send = Callable[..., stripe.billing.MeterEvent]


@pytest.fixture
def customer(client: stripe.StripeClient) -> str:
    return client.v1.customers.create({}).id


@pytest.fixture
def meter(client: stripe.StripeClient) -> str:
    return make_meter(client)


def make_meter(client: stripe.StripeClient, formula: str = "sum", **more: Any) -> str:
    return client.v1.billing.meters.create(
        {"display_name": "Calls", "event_name": "calls", "default_aggregation": {"formula": formula}, **more}
    ).id


@pytest.fixture
def send(client: stripe.StripeClient, customer: str) -> Send:
    def sending(value: str = "1", *, at: int | None = None, to: str = customer, **more: Any) -> Any:
        given: dict[str, Any] = {"event_name": "calls", "payload": {"stripe_customer_id": to, "value": value}}
        return client.v1.billing.meter_events.create(
            {**given, **({} if at is None else {"timestamp": at}), **more}
        )

    return sending


@pytest.fixture
def used(client: stripe.StripeClient, customer: str, now: int) -> Callable[[str], float]:
    """What the meter shows of the last two and the next two days."""

    def using(meter: str) -> float:
        found = client.v1.billing.meters.event_summaries.list(
            meter, {"customer": customer, "start_time": now - 2 * DAY, "end_time": now + 2 * DAY}
        )
        return sum(one.aggregated_value for one in found.data)

    return using


@pytest.fixture
def told(client: stripe.StripeClient) -> Callable[[], list[tuple[str, str | None, list[str]]]]:
    """The errors told by thin events: type of event, related object, codes."""

    def telling() -> list[tuple[str, str | None, list[str]]]:
        found = []
        for event in client.v2.core.events.list().data:
            whole = client.v2.core.events.retrieve(event.id)
            codes = [one.code for one in whole.data.reason.error_types]  # type: ignore[attr-defined]
            found.append((event.type, whole.related_object.id if "related_object" in whole else None, codes))  # type: ignore[attr-defined]
        return found

    return telling


class TestRefusedAtOnce:
    def test_a_repeated_identifier_for_a_day(
        self, sim: EmbeddedStripe, meter: str, send: Send, used: Callable[[str], float]
    ) -> None:
        send("5", identifier="hour-1")
        with pytest.raises(stripe.InvalidRequestError, match="already exists with identifier hour-1") as refused:
            send("5", identifier="hour-1")
        assert refused.value.http_status == 400
        assert refused.value.headers["stripe-should-retry"] == "false"
        assert used(meter) == 5
        sim.control.advance(DAY)
        send("5", identifier="hour-1")
        assert used(meter) == 10

    @pytest.mark.parametrize(
        ("offset", "code"),
        [
            (-35 * DAY, None),
            (-35 * DAY - 1, "timestamp_too_far_in_past"),
            (300, None),
            (301, "timestamp_in_future"),
        ],
    )
    def test_moments_older_than_35_days_or_more_than_5_minutes_ahead(
        self, meter: str, send: Send, now: int, offset: int, code: str | None
    ) -> None:
        if code is None:
            assert send(at=now + offset).timestamp == now + offset
        else:
            with pytest.raises(stripe.InvalidRequestError) as refused:
                send(at=now + offset)
            assert refused.value.code == code

    def test_the_window_follows_the_simulated_clock(
        self, sim: EmbeddedStripe, meter: str, send: Send, now: int
    ) -> None:
        sim.control.advance(40 * DAY)
        with pytest.raises(stripe.InvalidRequestError):
            send(at=now)
        send(at=now + 39 * DAY)

    def test_more_than_fifteen_digits(self, meter: str, send: Send) -> None:
        send("9" * 15)
        with pytest.raises(stripe.InvalidRequestError) as refused:
            send("9" * 16)
        assert refused.value.code == "meter_event_value_too_many_digits"

    def test_numbers_where_strings_belong(self, client: stripe.StripeClient, meter: str, customer: str) -> None:
        with pytest.raises(stripe.InvalidRequestError):
            client.v2.billing.meter_events.create(
                {"event_name": "calls", "payload": {"stripe_customer_id": customer, "value": 5}}  # type: ignore[dict-item]
            )


class TestToldLater:
    @pytest.mark.parametrize(
        ("given", "code"),
        [
            ({"to": "cus_none"}, "meter_event_customer_not_found"),
            ({"payload": {"value": "1"}}, "meter_event_no_customer_defined"),
            ({"value": "many"}, "meter_event_invalid_value"),
        ],
    )
    def test_an_event_that_does_not_count_is_taken_and_told_of_by_a_thin_event(  # noqa: PLR0917 - fixtures
        self, meter: str, send: Send, told: Any, used: Callable[[str], float], given: dict, code: str
    ) -> None:
        assert send(identifier="x", **given).identifier == "x"
        assert told() == [("v1.billing.meter.error_report_triggered", meter, [code])]
        assert used(meter) == 0

    def test_an_unknown_or_archived_meter(
        self, client: stripe.StripeClient, meter: str, send: Send, told: Any
    ) -> None:
        send(event_name="nothing")
        assert told() == [("v1.billing.meter.no_meter_found", None, ["no_meter"])]
        client.v1.billing.meters.deactivate(meter)
        send()
        assert told()[0] == ("v1.billing.meter.error_report_triggered", meter, ["archived_meter"])

    def test_negative_values_only_where_the_account_takes_none(
        self, sim: EmbeddedStripe, meter: str, send: Send, told: Any, used: Callable[[str], float]
    ) -> None:
        send("7")
        send("-3")
        assert used(meter) == 4
        sim.control.configure(whole_positive_values=True)
        send("-1")
        assert used(meter) == 4
        assert [codes for _, _, codes in told()] == [["meter_event_invalid_value"]]

    def test_it_is_told_when_the_time_has_come_though_nobody_asks(
        self, sim: EmbeddedStripe, meter: str, send: Send
    ) -> None:
        sim.control.configure(aggregation_seconds=1)
        sim.control.thaw()
        send(to="cus_none")
        deadline = time.monotonic() + 20
        while not sim.control.dump("v2.core.event"):
            assert time.monotonic() < deadline
            time.sleep(0.02)


class TestCounting:
    def test_events_count_only_after_a_while_when_that_is_asked_for(
        self, sim: EmbeddedStripe, meter: str, send: Send, used: Callable[[str], float]
    ) -> None:
        sim.control.configure(aggregation_seconds=30)
        send("5")
        sim.control.advance(29)
        assert used(meter) == 0
        sim.control.advance(1)
        assert used(meter) == 5

    @pytest.mark.parametrize(
        ("formula", "window", "expected"),
        [("sum", None, 15), ("count", None, 4), ("last", None, 5), ("sum", "hour", 7), ("sum", "day", 5)],
    )
    def test_formulas_and_windows(  # noqa: PLR0917 - fixtures
        self, client: stripe.StripeClient, send: Send, used: Callable[[str], float], now: int,
        formula: str, window: str | None, expected: float,
    ) -> None:  # fmt: skip
        meter = make_meter(client, formula, **({"event_time_window": window} if window else {}))
        for value, at in (("2", now - 2 * HOUR), ("3", now), ("5", now + 20), ("5", now + 10)):
            send(value, at=at)
        assert used(meter) == expected

    def test_hours_and_days_are_shown_apart(
        self, client: stripe.StripeClient, meter: str, send: Send, customer: str, now: int
    ) -> None:
        for value, at in (("1", now - DAY), ("2", now - 1), ("3", now), ("4", now + 5)):
            send(value, at=at)

        def shown(grouping: str, start: int, end: int) -> list[tuple[int, float]]:
            params = {"customer": customer, "start_time": start, "end_time": end}
            found = client.v1.billing.meters.event_summaries.list(
                meter,
                {**params, "value_grouping_window": grouping},  # type: ignore[typeddict-item]
            )
            return [(one.start_time, one.aggregated_value) for one in found.data]

        hour, day = now - now % HOUR, now - now % DAY
        assert shown("hour", hour - HOUR, hour + HOUR) == [(hour, 7.0), (hour - HOUR, 2.0)]
        assert shown("day", day - DAY, day + DAY) == [(day, 9.0), (day - DAY, 1.0)]

    @pytest.mark.parametrize(
        ("grouping", "start", "end"),
        [(None, 30, 600), (None, 0, 61), ("hour", 1_800, 7_200), ("day", 3_600, 172_800), (None, 600, 600)],
    )
    def test_bounds_must_lie_on_minutes_hours_or_days(  # noqa: PLR0917 - fixtures
        self, client: stripe.StripeClient, meter: str, customer: str, grouping: str | None, start: int, end: int
    ) -> None:
        given: dict[str, Any] = {"customer": customer, "start_time": start, "end_time": end}
        if grouping:
            given["value_grouping_window"] = grouping
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.billing.meters.event_summaries.list(meter, given)  # type: ignore[arg-type]

    def test_v2_counts_like_v1(
        self, client: stripe.StripeClient, meter: str, customer: str, used: Callable[[str], float], now: int
    ) -> None:
        made = client.v2.billing.meter_events.create(
            {
                "event_name": "calls",
                "payload": {"stripe_customer_id": customer, "value": "8"},
                "identifier": "v2",
                "timestamp": "2026-03-01T11:59:00Z",
            }
        )
        assert made.timestamp == "2026-03-01T11:59:00.000Z"
        assert used(meter) == 8


class TestCancelling:
    def cancel(self, client: stripe.StripeClient, identifier: str) -> Any:
        return client.v1.billing.meter_event_adjustments.create(
            {"event_name": "calls", "type": "cancel", "cancel": {"identifier": identifier}}
        )

    def test_an_event_can_be_taken_back_within_a_day_of_its_receipt(  # noqa: PLR0917 - fixtures
        self, sim: EmbeddedStripe, client: stripe.StripeClient, meter: str, send: Send,
        used: Callable[[str], float], now: int,
    ) -> None:  # fmt: skip
        send("5", identifier="a", at=now - 2 * HOUR)
        send("7", identifier="b")
        sim.control.advance(DAY)
        assert self.cancel(client, "a").status == "complete"
        assert used(meter) == 7
        with pytest.raises(stripe.InvalidRequestError):
            self.cancel(client, "a")
        sim.control.advance(1)
        with pytest.raises(stripe.InvalidRequestError, match="24 hours"):
            self.cancel(client, "b")
        with pytest.raises(stripe.InvalidRequestError):
            self.cancel(client, "never")

    def test_one_that_is_not_counted_yet_never_counts(
        self,
        sim: EmbeddedStripe,
        client: stripe.StripeClient,
        meter: str,
        send: Send,
        used: Callable[[str], float],
    ) -> None:
        sim.control.configure(aggregation_seconds=30)
        send("5", identifier="a")
        assert self.cancel(client, "a").status == "pending"
        sim.control.advance(60)
        assert used(meter) == 0


class TestMeters:
    def test_an_event_name_belongs_to_one_active_meter(self, client: stripe.StripeClient, meter: str) -> None:
        with pytest.raises(stripe.InvalidRequestError):
            make_meter(client)
        client.v1.billing.meters.deactivate(meter)
        make_meter(client)
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.billing.meters.reactivate(meter)

    def test_only_its_name_can_be_changed(self, client: stripe.StripeClient, meter: str) -> None:
        assert client.v1.billing.meters.update(meter, {"display_name": "All calls"}).display_name == "All calls"
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.billing.meters.update(meter, {"default_aggregation": {"formula": "count"}})  # type: ignore[typeddict-unknown-key]
