import json
from pathlib import Path

import pytest

from gateway_contract.usage_lines import MAX_BYTES_PER_ENTRY, MAX_LINES_PER_ENTRY
from kong_plugins.parts.usage_lines import encode_usage_line, read_usage_line
from kong_plugins.shipper.batches import CHUNK_BYTES, Batch, cut_batch, read_batch, read_torn_tail
from tests.shipper.support import TEMPLATE, file_log_line, file_log_lines, request_id


def ids(batch: Batch | None) -> list[str]:
    assert batch
    return [json.loads(line)["id"] for line in batch.lines.split(b"\n")] if batch.lines else []


class TestCutBatch:
    def test_takes_whole_lines_only(self) -> None:
        data = file_log_lines([1, 2]) + file_log_line(3)

        batch = cut_batch(data, start=100)

        assert ids(batch) == [request_id(1), request_id(2)]
        assert (batch.start, batch.end, batch.count) == (100, 100 + len(file_log_lines([1, 2])), 2)
        assert cut_batch(file_log_line(3), start=0) is None

    def test_every_cut_of_the_file_gives_the_same_lines(self) -> None:
        data = file_log_lines(range(3))
        for cut in range(0, len(data), 97):
            first = cut_batch(data[:cut], start=0)
            position = first.end if first else 0
            rest = cut_batch(data[position:], start=position)
            found = (ids(first) if first else []) + ids(rest)
            assert found == [request_id(number) for number in range(3)]

    def test_stays_within_the_limits_of_an_entry(self) -> None:
        many = cut_batch(file_log_lines(range(MAX_LINES_PER_ENTRY + 1)), start=0)
        assert len(ids(many)) == MAX_LINES_PER_ENTRY

        line = TEMPLATE.replace(b"/fl/v1/x", b"\\u0001" * 1024)
        big = cut_batch((line + b"\n") * 200, start=0)
        assert big.count < 200
        assert len(big.lines) <= MAX_BYTES_PER_ENTRY

    def test_an_unreadable_line_is_set_aside_with_its_place(self) -> None:
        data = file_log_lines([1]) + b'{"bad": 1}\n\n' + file_log_lines([2])

        batch = cut_batch(data, start=1000)

        assert ids(batch) == [request_id(1), request_id(2)]
        assert batch.end == 1000 + len(data)
        (rejected,) = batch.rejected
        assert rejected.offset == 1000 + len(file_log_lines([1]))
        assert rejected.raw == b'{"bad": 1}'

    @pytest.mark.parametrize("cut", range(1, len(TEMPLATE), 53))
    def test_a_line_glued_to_a_torn_one_is_kept(self, cut: int) -> None:
        batch = cut_batch(TEMPLATE[:cut] + file_log_line(7) + b"\n", start=0)

        assert ids(batch) == [request_id(7)]
        assert [(line.reason, line.raw) for line in batch.rejected] == [("torn", TEMPLATE[:cut])]

    def test_a_path_cannot_pretend_to_be_a_line(self) -> None:
        forged = json.dumps("/" + file_log_line(9).decode()).encode()
        torn = TEMPLATE.replace(b'"/fl/v1/x"', forged)[:-1]

        batch = cut_batch(torn + b"\n", start=0)

        assert ids(batch) == []
        assert len(batch.rejected) == 1


class TestReadBatch:
    def test_a_line_longer_than_a_chunk_is_passed_once_it_has_an_end(self, tmp_path: Path) -> None:
        path = tmp_path / "segment"
        huge = b'{"a":"' + b"x" * (2 * CHUNK_BYTES)
        path.write_bytes(huge)
        assert read_batch(path, start=0) is None

        path.write_bytes(huge + b'"}\n' + file_log_lines([1]))
        batch = read_batch(path, start=0)

        assert [line.reason for line in batch.rejected] == ["too long"]
        assert ids(read_batch(path, start=batch.end)) == [request_id(1)]


class TestTornTail:
    def test_is_good_where_only_the_newline_is_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "segment"
        path.write_bytes(TEMPLATE)

        batch = read_torn_tail(path, start=0, end=len(TEMPLATE))

        assert batch.lines == encode_usage_line(read_usage_line(TEMPLATE))
        assert batch.rejected == ()

    def test_is_rejected_and_passed_otherwise(self, tmp_path: Path) -> None:
        path = tmp_path / "segment"
        path.write_bytes(TEMPLATE[:-9])

        batch = read_torn_tail(path, start=0, end=len(TEMPLATE) - 9)

        assert (batch.end, batch.count) == (len(TEMPLATE) - 9, 0)
        assert [line.reason for line in batch.rejected] == ["torn"]
