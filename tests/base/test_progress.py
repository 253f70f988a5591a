"""Texts that are read as they come."""

from pathlib import Path

import pytest

from infty.base.errors import MissingError
from infty.base.progress import open_text


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfword\r\n")
    with open_text(tmp_path / "a.txt") as file:
        assert file.read() == "word\r\n"


def test_a_text_in_utf_16_is_refused_with_how_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word\n", encoding="utf-16")
    wanted = r"a\.txt is no UTF-8 text: .*it looks like UTF-16; convert it first, as with: iconv -f UTF-16 -t UTF-8"
    with pytest.raises(MissingError, match=wanted), open_text(tmp_path / "a.txt") as file:
        file.read()
