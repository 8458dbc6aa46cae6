"""A disk that keeps no lines admits no calls, unless the operator wants it so."""

import shutil
import time

import pytest

from kong_plugins.parts import spool_guard
from kong_plugins.parts.spool_writer import METER_FILE_NAME, SpoolWriteError, SpoolWriter
from kong_plugins.plugins import km_key_auth, km_plan_limit
from tests.plugins.conftest import make_call
from tests.plugins.fakes import PRODUCT, FakeKong

ALL_THE_DISKS_THERE_ARE = "900000000"


@pytest.fixture
def spool(tmp_path):
    directory = tmp_path / "spool"
    directory.mkdir()
    return directory


@pytest.fixture
def start(redis_url, start_worker, spool):
    def start_with(**environment):
        worker = start_worker(redis_url, KM_SPOOL_DIR=str(spool), **environment)
        worker.start()
        return worker

    return start_with


class TestSpoolGuard:
    def test_lets_calls_pass_while_lines_can_be_kept_and_leaves_nothing_behind(self, start, project, spool):
        start()
        assert make_call(project().text).served
        assert list(spool.iterdir()) == []

    def test_refuses_below_the_reserve_and_consumes_nothing(self, start, project):
        start(KM_SPOOL_RESERVE_MB=ALL_THE_DISKS_THERE_ARE)
        account = project()
        refused = spool_guard._refused.value
        kong = make_call(account.text)
        assert (kong.status, kong.code) == (503, "unavailable")
        assert account.counters() == {}
        assert spool_guard._refused.value == refused + 1

    def test_refuses_what_km_plan_limit_would_admit_too(self, start, project):
        start(KM_SPOOL_RESERVE_MB=ALL_THE_DISKS_THERE_ARE)
        kong = FakeKong({"apikey": project().text})
        km_key_auth.Plugin({"api_product": PRODUCT}).access(kong)
        assert kong.served
        km_plan_limit.Plugin({"api_product": PRODUCT}).access(kong)
        assert kong.code == "unavailable"

    def test_still_says_who_is_refused_anyway(self, start):
        start(KM_SPOOL_RESERVE_MB=ALL_THE_DISKS_THERE_ARE)
        assert make_call("km_live_nonsense").code == "malformed_key"

    def test_serves_and_counts_where_told_to(self, start, project):
        start(KM_SPOOL_RESERVE_MB=ALL_THE_DISKS_THERE_ARE, KM_SPOOL_FULL="serve")
        risked = spool_guard._served.value
        assert make_call(project().text).served
        assert spool_guard._served.value == risked + 1

    def test_notices_within_seconds_that_the_directory_went_and_came_back(self, start, project, spool, caplog):
        import gevent

        start()
        account = project()
        shutil.rmtree(spool)
        deadline = time.monotonic() + 20
        while make_call(account.text).served:
            assert time.monotonic() < deadline
            gevent.sleep(0.1)
        assert "No such file or directory" in caplog.text
        spool.mkdir()
        while not make_call(account.text).served:
            assert time.monotonic() < deadline
            gevent.sleep(0.1)

    def test_notices_a_live_file_that_takes_no_lines(self, start, project, spool):
        worker = start()
        (spool / "usage.log").mkdir()
        worker.spool.look(spool)
        assert make_call(project().text).code == "unavailable"
        assert worker.spool.trouble == "Is a directory"
        (spool / "usage.log").rmdir()
        worker.spool.look(spool)
        assert make_call(project().text).served

    def test_hears_at_once_of_a_line_that_could_not_be_written(self, start, project, spool, tmp_path):
        worker = start()
        (spool / METER_FILE_NAME).mkdir()
        assert make_call(project().text).served, "not looked at yet"
        with pytest.raises(SpoolWriteError):
            SpoolWriter(tmp_path / "elsewhere").append({})
        assert worker.spool.trouble == ""
        with pytest.raises(SpoolWriteError):
            SpoolWriter(spool).append({})
        assert make_call(project().text).code == "unavailable"
