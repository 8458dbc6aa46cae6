"""What the environment makes of Stripe: nothing without a key, no doors without secrets."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from control_plane.entrypoints.settings import Settings
from control_plane.entrypoints.stripe_components import (
    events_config,
    stripe_config,
    stripe_workers,
    webhooks_config,
)

NEW, OLD, THIN = "whsec_newnewnew", "whsec_oldoldold", "whsec_thinthin"
KEY = "sk_test_" + "k" * 24


def settings(**stripe: str) -> Settings:
    return Settings(
        database_url="postgresql+psycopg://nobody@127.0.0.1/none",
        redis_url="redis://127.0.0.1:1",
        clickhouse_dsn="chdb:///nowhere",
        gateway_secret="a gateway secret of more than 32 characters",
        **{f"stripe_{name}": value for name, value in stripe.items()},
    )


class TestWithoutAKey:
    def test_nothing_asks_stripe(self) -> None:
        assert stripe_config(settings()) is None
        assert stripe_workers(settings(), sessions=None) == []

    def test_webhooks_are_taken_where_they_have_secrets(self) -> None:
        config = webhooks_config(settings(webhook_secret=NEW), sessions=None)
        assert (config.snapshot_secrets, config.thin_secrets) == ((NEW,), ())


class TestWithAKey:
    def test_one_worker_does_all_of_it(self) -> None:
        assert [one.name for one in stripe_workers(settings(key=KEY), sessions=None)] == ["stripe"]

    def test_several_secrets_count_while_one_replaces_another(self) -> None:
        config = webhooks_config(
            settings(key=KEY, webhook_secret=f"{NEW}, {OLD}", thin_secret=THIN), sessions=None
        )
        assert (config.snapshot_secrets, config.thin_secrets) == ((NEW, OLD), (THIN,))
        for secret in (NEW, OLD, THIN):
            assert secret not in repr(config)

    @pytest.mark.parametrize("secret", ["nonsense", f"{NEW},", f"{NEW},nonsense", "whsec_"])
    def test_what_is_no_secret_is_refused_at_the_start(self, secret: str) -> None:
        with pytest.raises(ValidationError, match="whsec_"):
            settings(webhook_secret=secret)

    def test_lists_are_read_every_few_minutes_where_no_webhook_can_come(self) -> None:
        daily = events_config(settings(key=KEY, webhook_secret=NEW, event_body_days="7"))
        polled = events_config(settings(key=KEY))
        assert (daily.lists_every, daily.keep_bodies) == (timedelta(days=1), timedelta(days=7))
        assert (polled.lists_every, polled.lag) == (timedelta(minutes=5), timedelta(0))
