import json
import subprocess
import sys
from pathlib import Path

import pytest

from kong_plugins.parts.spool_writer import SpoolWriteError, SpoolWriter
from tests.shipper.support import ROOT

LINE = {"v": 1, "id": "0" * 32}


class TestSpoolWriter:
    def test_a_line_after_a_rename_goes_into_the_new_live_file(self, spool_dir: Path) -> None:
        writer = SpoolWriter(spool_dir)
        writer.append(LINE)
        (spool_dir / "meter.log").rename(spool_dir / "renamed")
        writer.append(LINE)

        assert json.loads((spool_dir / "renamed").read_bytes()) == LINE
        assert json.loads((spool_dir / "meter.log").read_bytes()) == LINE

    def test_a_full_disk_is_an_error(self, spool_dir: Path) -> None:
        (spool_dir / "meter.log").symlink_to("/dev/full")

        with pytest.raises(SpoolWriteError, match="No space left"):
            SpoolWriter(spool_dir).append(LINE)

    def test_a_directory_that_is_away_is_an_error(self, spool_dir: Path) -> None:
        with pytest.raises(SpoolWriteError):
            SpoolWriter(spool_dir / "away").append(LINE)

    def test_a_short_write_is_an_error(self, spool_dir: Path) -> None:
        code = (
            "import resource, sys; from pathlib import Path;"
            "from kong_plugins.parts.spool_writer import SpoolWriter;"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10));"
            "SpoolWriter(Path(sys.argv[1])).append({'v': 1, 'id': '0' * 32})"
        )
        ended = subprocess.run(
            [sys.executable, "-B", "-c", code, spool_dir], cwd=ROOT, capture_output=True, text=True, check=False
        )

        assert ended.returncode == 1
        assert "SpoolWriteError: only 10 of" in ended.stderr
