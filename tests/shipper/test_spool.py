from pathlib import Path

import pytest

from kong_plugins.shipper.quarantine import MAX_LINE_CHARACTERS, Quarantine, redact_line
from kong_plugins.shipper.spool import Spool, SpoolBusyError, SpoolIdentityError
from tests.shipper.support import KEY, SERIALIZED_LINE


class TestIdentity:
    def test_is_drawn_once(self, spool_dir: Path) -> None:
        first = Spool(spool_dir)
        first.close()
        second = Spool(spool_dir)
        second.close()

        assert first.shipper_id == second.shipper_id
        assert first.shipper_id.startswith("shp_")

    def test_a_damaged_one_is_said_not_replaced(self, spool_dir: Path) -> None:
        (spool_dir / "shipper-id").write_text("shp_\n")

        with pytest.raises(SpoolIdentityError, match="holds no shipper id"):
            Spool(spool_dir)


class TestLock:
    def test_a_directory_has_one_shipper(self, spool_dir: Path) -> None:
        first = Spool(spool_dir)
        with pytest.raises(SpoolBusyError, match="one directory, one shipper"):
            Spool(spool_dir)
        first.close()
        Spool(spool_dir).close()


class TestTake:
    def test_two_live_files_of_the_same_moment_stay_apart(self, spool_dir: Path) -> None:
        spool = Spool(spool_dir)
        for name in ("usage.log", "meter.log", "empty.log", "notes.txt"):
            (spool_dir / name).write_text("" if name == "empty.log" else name)

        for path, _ in spool.live_files():
            spool.take(path, now_ms=1)
        spool.close()

        assert {path.read_text() for path in spool.segment_files()} == {"usage.log", "meter.log"}
        assert spool.live_files() == []


class TestQuarantine:
    @pytest.mark.parametrize(
        "secret",
        [
            KEY,
            KEY[:20],
            KEY.replace("_", "%5F"),
            '"authorization":"Bearer s3cret-s3cret"',
            '"x-api-key":["s3cret-s3cret"]',
            '"cookie":"a=s3cret-s3cret',
            '"uri":"/x?s3cret-s3cret=1"',
            '"querystring":{"a":"s3cret-s3cret"}',
        ],
    )
    def test_keeps_no_secret(self, secret: str) -> None:
        text = redact_line(b'{"a":' + secret.encode() + b",\xff")

        assert "s3cret" not in text
        assert KEY[8:20] not in text

    def test_a_whole_log_with_headers_keeps_nothing_of_them(self) -> None:
        assert "alice-key" not in redact_line(SERIALIZED_LINE)

    def test_a_key_across_the_cut_is_redacted(self) -> None:
        text = redact_line(b"x" * (MAX_LINE_CHARACTERS - 10) + KEY.encode())

        assert KEY[8:10] not in text.removeprefix("x" * (MAX_LINE_CHARACTERS - 10))

    def test_is_bounded(self, tmp_path: Path) -> None:
        quarantine = Quarantine(tmp_path, max_bytes=20_000)
        for number in range(200):
            quarantine.keep(segment="s", offset=number, reason="torn", raw=b"x" * 1000, now_ms=1)

        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 20_000 + 2 * 5_000
        assert "199" in quarantine.path.read_text().splitlines()[-1]
