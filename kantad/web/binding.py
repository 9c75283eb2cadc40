"""Addresses taken: TCP and Unix sockets, bound but not listening yet.

Binding is apart from listening, so that an address that cannot be had is known before a file is
made; until `web.server` listens on them, who connects is refused. Nothing here is asynchronous.
"""

import contextlib
import errno
import os
import socket
import stat


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address of a host; at port 0 each has one of its own. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with contextlib.ExitStack() as undo:
        bound = []
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                made = socket.socket(family, kind, protocol)
            except OSError:
                continue  # the system does not speak it
            bound.append(undo.enter_context(made))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(address)
        if not bound:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        undo.pop_all()
        return bound


def bind_unix(path: str) -> socket.socket:
    """A Unix socket that only its owner may use; one that nobody listens on is replaced.

    Raises OSError, also where somebody listens on it or the path is another kind of file.
    """
    _remove_stale(path)
    made = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        made.bind(path)
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(mask)
    return made


def _remove_stale(path: str) -> None:
    """Remove a Unix socket that nobody listens on; raises OSError where somebody does, or where it is no socket."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise FileExistsError(errno.EEXIST, "there is a file that is no socket", path)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)


def release(sockets: list[socket.socket]) -> None:
    """Give up what was bound, where nobody listens on it yet; a Unix socket's path is removed."""
    for each in sockets:
        with each, contextlib.suppress(OSError):
            if each.family == socket.AF_UNIX:
                os.unlink(each.getsockname())
