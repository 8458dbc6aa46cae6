"""Puts Parquet files of one schema one after another, as row groups of a single file.

ClickHouse gives a whole Parquet file for each query, all of it in memory. A large export is many queries; what
their files hold is copied as it is, and only the offsets in their footers are moved. So memory stays that of one
piece, nothing is decoded, and no other library is needed. Offsets stand in the footer and, where a file has page
indexes or Bloom filters, before it: files must be written without those (`event_reads` sees to it).
"""

from typing import BinaryIO

from control_plane.usage.requests.exports.thrift import Field, Struct, read_struct, write_struct

MAGIC = b"PAR1"
_TAIL = 8  # length of the footer, magic
# fields of the footer's structs, as parquet.thrift numbers them
_SCHEMA, _NUM_ROWS, _ROW_GROUPS = 2, 3, 4
_GROUP_COLUMNS, _GROUP_FILE_OFFSET, _GROUP_ORDINAL = 1, 5, 7
_COLUMN_FILE_OFFSET, _COLUMN_META_DATA = 2, 3
_OFFSET_INDEX, _COLUMN_INDEX = 4, 6
_BLOOM_FILTER = 14
_PAGE_OFFSETS = (9, 10, 11)  # of data pages, index pages, the dictionary page


class ParquetJoinError(ValueError):
    """A piece cannot be put behind the others: other columns, or offsets outside its footer."""


class ParquetJoiner:
    """Writes one Parquet file out of many. Nothing can be read of it before `finish`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._footer: Struct | None = None
        self._size = file.write(MAGIC)

    def add(self, piece: bytes) -> int:
        """Add a whole Parquet file and return how many rows it has.

        Raises:
            ParquetJoinError: it is none, or has other columns than the first.
        """
        footer, end = _footer_of(piece)
        shift = self._size - len(MAGIC)
        self._size += self._file.write(memoryview(piece)[len(MAGIC) : end])
        rows = int(footer[_NUM_ROWS].value)
        groups = footer[_ROW_GROUPS].value.values
        for group in groups:
            _move_group(group, shift)
        if self._footer is None:
            self._footer = footer
            return rows
        if footer[_SCHEMA] != self._footer[_SCHEMA]:
            raise ParquetJoinError("the columns are not those of the first piece")
        self._footer[_NUM_ROWS] = Field(footer[_NUM_ROWS].kind, int(self._footer[_NUM_ROWS].value) + rows)
        self._footer[_ROW_GROUPS].value.values.extend(groups)
        return rows

    def finish(self) -> None:
        """Write the footer.

        Raises:
            ParquetJoinError: nothing was added.
        """
        if self._footer is None:
            raise ParquetJoinError("a file needs one piece at least, if one without rows")
        for number, group in enumerate(self._footer[_ROW_GROUPS].value.values):
            if _GROUP_ORDINAL in group:
                group[_GROUP_ORDINAL] = Field(group[_GROUP_ORDINAL].kind, number)
        footer = write_struct(self._footer)
        self._file.write(footer + len(footer).to_bytes(4, "little") + MAGIC)


def _footer_of(piece: bytes) -> tuple[Struct, int]:
    """Return a file's footer, and where it begins."""
    if len(piece) < len(MAGIC) + _TAIL or piece[:4] != MAGIC or piece[-4:] != MAGIC:
        raise ParquetJoinError("a piece is no Parquet file")
    begins = len(piece) - _TAIL - int.from_bytes(piece[-_TAIL:-4], "little")
    if begins < len(MAGIC):
        raise ParquetJoinError("a piece is no Parquet file")
    return read_struct(piece[begins:-_TAIL]), begins


def _move_group(group: Struct, shift: int) -> None:
    _move(group, _GROUP_FILE_OFFSET, shift)
    for column in group[_GROUP_COLUMNS].value.values:
        meta = column[_COLUMN_META_DATA].value
        if _OFFSET_INDEX in column or _COLUMN_INDEX in column or _BLOOM_FILTER in meta:
            raise ParquetJoinError("a piece has page indexes or Bloom filters, whose offsets stand in the data")
        _move(column, _COLUMN_FILE_OFFSET, shift)
        for field in _PAGE_OFFSETS:
            _move(meta, field, shift)


def _move(struct: Struct, field: int, shift: int) -> None:
    # 0 is what a writer puts that does not say: older readers need the field, none reads it
    if field in struct and struct[field].value:
        struct[field] = Field(struct[field].kind, struct[field].value + shift)
