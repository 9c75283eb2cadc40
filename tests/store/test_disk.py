"""New files: whose they are, and what is said where none can be made."""

import errno
import os
import stat
from pathlib import Path

import pytest

from kantad.store.disk import RealDisk, place
from kantad.store.log import open_log
from tests.store.disks import FaultyDisk, KeepingDisk
from tests.store.logs import T0, every_kind

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@root
@pytest.mark.parametrize("disk", [RealDisk(), KeepingDisk(), KeepingDisk(errno.EINVAL)])
def test_what_is_set_aside_is_the_databases_owners_where_it_can_be(tmp_path: Path, disk: RealDisk) -> None:
    path = tmp_path / "data.kantadb"
    path.write_bytes(bytes(every_kind("json").data[:-7]))
    os.chown(path, 12345, 23456)
    opened, _ = open_log(str(path), None, disk, T0)
    opened.close()
    (aside,) = tmp_path.glob("data.kantadb.torn-*")
    status = aside.stat()
    owner = (0, 0) if isinstance(disk, KeepingDisk) else (12345, 23456)
    assert ((status.st_uid, status.st_gid), stat.S_IMODE(status.st_mode)) == (owner, 0o600)


@root
def test_an_empty_file_that_becomes_a_messagepack_file_stays_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "data.kantadb"
    path.touch(0o640)
    os.chown(path, 12345, 23456)
    opened, _ = open_log(str(path), "msgpack", RealDisk(), T0)
    opened.close()
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 23456, 0o640)


def test_a_folder_that_takes_no_file_is_named_not_the_file(tmp_path: Path) -> None:
    with pytest.raises(PermissionError) as caught:
        place(FaultyDisk(errno.EACCES, 0, ("open",)), str(tmp_path / "data.kantadb"), [b""], replace=False)
    assert caught.value.filename == str(tmp_path)
