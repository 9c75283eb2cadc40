"""Files that an offline command cannot read or mend: what is said, and the exit status.

A path that names no file, or one that may not be read, is the caller's mistake (2); what is read
and is damaged or no kantadb is 65; what another process has is 75; anything else that the system
says no to is the disk's (74).
"""

import errno
import os
from typing import Final, TextIO

from kantad.logs import escaped
from kantad.store.history import Unreadable
from kantad.store.log import IsFolder, Locked, NotOurs
from kantad.values.errors import Damaged

USAGE, DAMAGED, BROKEN, LOCKED = 2, 65, 74, 75
NO_FILE: Final = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)


Refusal = Damaged | Unreadable | Locked | NotOurs | OSError
REFUSALS: Final = (Damaged, Unreadable, Locked, NotOurs, OSError)


def refused(name: str, error: Refusal, err: TextIO, more: str = "") -> int:
    """Say why a file was refused, and `more`; returns the exit status. `name` is escaped already."""
    if isinstance(error, Locked):
        print(escaped(str(error)), file=err)
        return LOCKED
    if isinstance(error, Damaged | Unreadable):
        print(f"{name}: {escaped(str(error))}{more}\n`kantad check {name}` tells more.", file=err)
        return DAMAGED
    if isinstance(error, NotOurs):
        print(f"{name}: {escaped(str(error))}{more}", file=err)
        return USAGE if isinstance(error, IsFolder) else DAMAGED
    where = escaped(str(error.filename or name))
    place = "" if where in (name, os.path.realpath(name)) else f"{where}: "
    print(f"{name}: {place}{error.strerror}{more}", file=err)
    return USAGE if error.errno in NO_FILE else BROKEN
