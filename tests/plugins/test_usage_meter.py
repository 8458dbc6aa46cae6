"""One finished request, one line in the spool."""

import json
from pathlib import Path

import pytest

from gateway_contract import api_keys, headers
from gateway_contract.modes import Mode
from kong_plugins.parts.settings import SettingsError
from kong_plugins.parts.spool_writer import METER_FILE_NAME
from kong_plugins.plugins import km_usage_meter
from tests.plugins.fakes import FakeKong

KEY = api_keys.generate_api_key(Mode.LIVE)


def finished(**changes):
    return {
        "request": {
            "id": "530eae6271c91c3492172e39d7ff7171",
            "method": "POST",
            "size": 181,
            "uri": f"/v1/items?apikey={KEY}",
            "url": f"http://127.0.0.1:8100/v1/items?apikey={KEY}",
            "querystring": {"apikey": KEY},
            "headers": {"apikey": KEY, "cookie": "session=s3cret", "x-km-receipt": "1.up"},
        },
        "response": {
            "status": 200,
            "size": 341,
            "headers": {"x-km-receipt": "1.back", "x-tokens": "42", "set-cookie": "session=s3cret"},
        },
        "latencies": {"request": 7, "kong": 6, "proxy": 1, "receive": 0},
        "started_at": 1795392600477,
        "source": "upstream",
        "client_ip": "127.0.0.1",
        "route": {"name": "km"},
        "service": {"name": "up"},
        "upstream_uri": f"/items?apikey={KEY}",
        **changes,
    }


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KM_SPOOL_DIR", str(tmp_path))
    return tmp_path / METER_FILE_NAME


class TestUsageMeter:
    def test_writes_one_line_with_one_call_to_kong(self, spool):
        plugin = km_usage_meter.Plugin({"unit_headers": {"tokens": "X-Tokens"}})
        kong = FakeKong(log=finished())
        plugin.log(kong)
        assert kong.names == ["log.serialize"]
        (line,) = spool.read_text().splitlines()
        values = json.loads(line)
        assert (values["ru"], values["ra"], values["u"]) == ("1.up", "1.back", {"tokens": "42"})
        assert (values["p"], values["st"], values["rt"]) == ("/v1/items", 200, "km")

    @pytest.mark.parametrize(
        ("config", "expected"),
        [({}, "true"), ({"replay_headers": ["X-From-Cache"]}, "HIT"), ({"replay_headers": {}}, "")],
    )
    def test_says_what_the_configured_header_says_of_a_replay(self, spool, config, expected):
        response = {"headers": {"idempotent-replayed": "true", "x-from-cache": "HIT"}, "status": 200, "size": 1}
        km_usage_meter.Plugin(config).log(FakeKong(log=finished(response=response)))
        assert json.loads(spool.read_text())["rp"] == expected

    def test_writes_no_header_no_query_and_no_key(self, spool):
        km_usage_meter.Plugin({}).log(FakeKong({headers.RECEIPT: "x"}, log=finished()))
        text = spool.read_text()
        for secret in (KEY, KEY[8:40], "s3cret", "cookie", "?"):
            assert secret not in text

    def test_takes_the_log_as_text_too(self, spool):
        km_usage_meter.Plugin(None).log(FakeKong(log=(json.dumps(finished()), None)))
        assert len(spool.read_text().splitlines()) == 1

    def test_counts_what_it_cannot_read_or_write(self, spool, caplog):
        unreadable = km_usage_meter._lines["unreadable"].value
        not_written = km_usage_meter._lines["not_written"].value
        plugin = km_usage_meter.Plugin({})
        for record in (finished(request={}), "", "[]", "{"):
            plugin.log(FakeKong(log=record))
        spool.mkdir()
        plugin.log(FakeKong(log=finished()))
        assert km_usage_meter._lines["unreadable"].value == unreadable + 4
        assert km_usage_meter._lines["not_written"].value == not_written + 1
        assert KEY not in caplog.text

    def test_needs_a_spool_directory(self, monkeypatch):
        monkeypatch.delenv("KM_SPOOL_DIR", raising=False)
        with pytest.raises(SettingsError, match="KM_SPOOL_DIR"):
            km_usage_meter.Plugin({})
