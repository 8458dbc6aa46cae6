"""docs/failure-modes.md names a test that exists for every fault, and every fault of the soak."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "failure-modes.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| fault")]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


class TestFailureModesPage:
    def test_names_a_test_in_every_row(self):
        assert len(ROWS) > 35
        assert [row for row in ROWS if not re.search(r"`tests/[\w/]+\.py::Test\w+` \|$", row)] == []

    @pytest.mark.parametrize(("path", "name"), NAMED)
    def test_names_tests_that_there_are(self, path, name):
        tree = ast.parse((ROOT / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
