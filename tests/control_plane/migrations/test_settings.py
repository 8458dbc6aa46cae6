"""Settings come from the environment, are checked whole, and never repeat a secret."""

import pytest

from control_plane.entrypoints.notice_components import dunning_config, mail_config
from control_plane.entrypoints.settings import SettingsError, read_settings
from control_plane.notifications.model import Branding

GOOD = {
    "KM_DATABASE_URL": "postgresql+psycopg://km@127.0.0.1/km",
    "KM_REDIS_URL": "redis://127.0.0.1:6379/0",
    "KM_CLICKHOUSE_DSN": "chdb:///var/lib/km/events",
    "KM_GATEWAY_SECRET": "s" * 32,
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch):
    def set_variables(**changes: str | None) -> None:
        for name, value in {**GOOD, **changes}.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return set_variables


class TestReadSettings:
    def test_fills_in_what_is_not_given(self, environment):
        environment()
        settings = read_settings()
        assert (settings.host, settings.port, settings.gateway_nodes) == ("127.0.0.1", 8090, ())
        assert settings.gateway_secrets == (b"s" * 32,)

    def test_splits_lists(self, environment):
        environment(
            KM_GATEWAY_NODES=" http://127.0.0.1:8001/, http://127.0.0.1:8002 ,",
            KM_GATEWAY_SECRET="a" * 32 + "," + "b" * 40,
        )
        settings = read_settings()
        assert settings.gateway_nodes == ("http://127.0.0.1:8001", "http://127.0.0.1:8002")
        assert settings.gateway_secrets == (b"a" * 32, b"b" * 40)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("KM_DATABASE_URL", None),
            ("KM_DATABASE_URL", "mysql://x"),
            ("KM_REDIS_URL", "127.0.0.1"),
            ("KM_CLICKHOUSE_DSN", "sqlite://"),
            ("KM_GATEWAY_SECRET", "short"),
            ("KM_GATEWAY_NODES", "kong:8001"),
            ("KM_PUBLIC_URL", "nowhere"),
            ("KM_PORT", "http"),
            ("KM_USAGE_SHARDS", "0"),
            ("KM_EVENT_RETENTION_DAYS", "89"),
            ("KM_CLICKHOUSE_CLUSTER", "usage"),
            ("KM_CLICKHOUSE_INSERT_QUORUM", "some"),
        ],
    )
    def test_names_the_variable_and_keeps_its_value_to_itself(self, environment, name, value):
        environment(**{name: value})
        with pytest.raises(SettingsError) as refused:
            read_settings()
        assert str(refused.value).startswith(f"{name}: ")
        assert value is None or value not in str(refused.value)

    def test_says_what_an_address_looks_like(self, environment):
        environment(KM_DATABASE_URL="mysql://x")
        with pytest.raises(SettingsError, match=r"postgresql\+psycopg://user:password@host/name"):
            read_settings()

    def test_does_not_print_the_secret(self, environment):
        environment()
        assert "s" * 32 not in repr(read_settings())


class TestStripe:
    def test_is_off_where_nothing_is_said(self, environment):
        environment()
        assert read_settings().stripe_key.get_secret_value() == ""

    @pytest.mark.parametrize("kind", ["sk_test_", "rk_test_", "sk_live_", "rk_live_"])
    def test_takes_secret_and_restricted_keys_of_both_modes(self, environment, kind):
        environment(KM_STRIPE_KEY=kind + "abcdefgh12345678", KM_STRIPE_WEBHOOK_SECRET="whsec_abcdefgh1234")
        assert read_settings().stripe_key.get_secret_value().startswith(kind)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("KM_STRIPE_KEY", "pk_live_abcdefgh12345678"),
            ("KM_STRIPE_KEY", "abcdefgh12345678"),
            ("KM_STRIPE_KEY", "sk_live_short"),
            ("KM_STRIPE_WEBHOOK_SECRET", "abcdefgh12345678"),
            ("KM_STRIPE_THIN_SECRET", "sk_test_abcdefgh12345678"),
            ("KM_STRIPE_API_BASE", "stripe.example.com"),
            ("KM_STRIPE_INSTALLATION", "Upper"),
            ("KM_STRIPE_INSTALLATION", "a:b"),
        ],
    )
    def test_refuses_what_cannot_be_right_without_repeating_it(self, environment, name, value):
        environment(**{name: value})
        with pytest.raises(SettingsError) as caught:
            read_settings()
        assert name in str(caught.value)
        assert value not in str(caught.value)

    def test_shows_no_key(self, environment):
        environment(KM_STRIPE_KEY="sk_live_abcdefgh12345678", KM_STRIPE_THIN_SECRET="whsec_abcdefgh1234")
        shown = repr(read_settings())
        assert "abcdefgh" not in shown


class TestMail:
    def test_is_off_where_nothing_is_said(self, environment):
        environment()
        config = mail_config(read_settings())
        assert config.smtp is None
        assert config.branding.name == "kong-monetize"

    def test_is_sent_by_what_is_said(self, environment):
        environment(
            KM_SMTP_HOST="mail.example.com",
            KM_SMTP_USERNAME="km",
            KM_SMTP_PASSWORD="hunter2hunter2",
            KM_MAIL_FROM="Weather API <billing@example.com>",
            KM_SELLER_NAME="Wetterwerk GmbH",
            KM_SELLER_EMAIL="help@example.com",
            KM_PAYMENT_NOTE="By wire.",
        )
        settings = read_settings()
        config = mail_config(settings)
        assert (config.smtp.tls, config.smtp.port, config.smtp.password) == ("starttls", 587, "hunter2hunter2")
        assert config.branding == Branding(
            name="Wetterwerk GmbH", support_email="help@example.com", payment_note="By wire."
        )
        assert "hunter2" not in repr(settings) + repr(config)

    @pytest.mark.parametrize(
        ("changes", "names"),
        [
            ({"KM_MAIL_FROM": None}, "KM_MAIL_FROM"),
            ({"KM_MAIL_FROM": ""}, "KM_MAIL_FROM"),
            ({"KM_MAIL_FROM": "nobody"}, "KM_MAIL_FROM"),
            ({"KM_SMTP_TLS": "ssl"}, "KM_SMTP_TLS"),
            ({"KM_SMTP_TLS": "none", "KM_SMTP_USERNAME": "km"}, "KM_SMTP_TLS"),
        ],
    )
    def test_names_what_cannot_be_right(self, environment, changes, names):
        environment(**{"KM_SMTP_HOST": "mail.example.com", "KM_MAIL_FROM": "a@example.com", **changes})
        with pytest.raises(SettingsError, match=names):
            read_settings()

    def test_logs_in_without_encryption_on_this_machine_alone(self, environment):
        environment(
            KM_SMTP_HOST="127.0.0.1", KM_SMTP_TLS="none", KM_SMTP_USERNAME="km", KM_MAIL_FROM="a@example.com"
        )
        assert read_settings().smtp_username == "km"


class TestDunning:
    def test_serves_for_two_weeks_and_blocks_then(self, environment):
        environment()
        config = dunning_config(read_settings())
        assert (config.grace.days, config.after, config.free_plans) == (14, "block", ("free",))

    def test_does_what_is_said(self, environment):
        environment(
            KM_DUNNING_GRACE_DAYS="7",
            KM_DUNNING_AFTER="free",
            KM_DUNNING_FREE_PLAN="free, maps-free",
            KM_DUNNING_BY_PLAN='{"enterprise": "serve"}',
            KM_TRIAL_NOTICE_DAYS="0",
        )
        config = dunning_config(read_settings())
        assert (config.grace.days, config.after, config.free_plans) == (7, "free", ("free", "maps-free"))
        assert config.by_plan == {"enterprise": "serve"}
        assert not config.trial_notice

    @pytest.mark.parametrize(
        ("name", "value"),
        [("KM_DUNNING_AFTER", "delete"), ("KM_DUNNING_BY_PLAN", '{"x": "y"}'), ("KM_DUNNING_GRACE_DAYS", "-1")],
    )
    def test_refuses_what_cannot_be_right(self, environment, name, value):
        environment(**{name: value})
        with pytest.raises(SettingsError, match=name):
            read_settings()
