"""The beginning of a file, read while others do what they like with its name and its end."""

import os
from pathlib import Path

import pytest

from kantad.store.prefix import Prefix


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.kantadb"
    path.write_bytes(b"0123456789")
    return path


def test_it_ends_where_it_ended_and_is_the_same_file_whatever_takes_its_name(file: Path) -> None:
    fd = os.open(file, os.O_RDWR | os.O_APPEND)
    prefix = Prefix(fd, 8)
    os.write(fd, b"more")
    (file.parent / "new").write_bytes(b"another file")
    os.rename(file.parent / "new", file)
    os.close(fd)
    assert [prefix.read(place, 3) for place in (0, 3, 6)] == [b"012", b"345", b"67"]
    prefix.close()
    with pytest.raises(OSError):
        os.fstat(prefix.fd)


def test_a_file_that_was_cut_is_noticed(file: Path) -> None:
    fd = os.open(file, os.O_RDWR)
    prefix = Prefix(fd, 10)
    os.ftruncate(fd, 4)
    assert prefix.read(0, 10) == b"0123"
    with pytest.raises(EOFError):
        prefix.read(4, 10)
    prefix.close()
    os.close(fd)
