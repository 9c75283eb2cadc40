"""What every write may be given, and the request that it makes. Pure."""

from collections.abc import Iterable
from typing import Any, Literal, TypedDict

from kanta_client.messages import Transact
from kanta_client.outgoing import builtins
from kanta_client.paths import Path, pointer, refused
from kanta_client.records import Written
from kantad.values.errors import Problem

Ack = Literal["durable", "written", "applied"]


class Unnamed(TypedDict, total=False):
    """Of all writes, but for the action.

    `user` is recorded with the change. `ack` is when it is answered: on the disk (the default), written,
    or at once. `key` is the idempotency key, 1 to 128 printable ASCII characters; made where none is given. `base`, a
    revision, a cursor or what another write returned, refuses it with `Conflict` if something it touches has changed
    since; `etag` (`PreconditionFailed`) if the value at the path is another one; `exists` if there is one, or none.
    `conditions` are those of `POST /v1/transaction`, their paths in either form. `m` is a domain's own time, RFC 3339.
    `timeout`, in seconds, is how long is tried.
    """

    user: str
    ack: Ack
    key: str
    base: int | str | Written
    etag: str
    exists: bool
    conditions: Iterable[dict[str, Any]]
    m: str
    timeout: float


class Options(Unnamed, total=False):
    """Of all writes; `action` is recorded with the change, too."""

    action: str


_NAMES = Options.__required_keys__ | Options.__optional_keys__


def known(options: Options) -> None:
    """Raises TypeError for an option that there is not: `exist=False` must not write unconditionally."""
    if not _NAMES.issuperset(options):
        raise TypeError(f"a write has no option {', '.join(sorted(set(options) - _NAMES))}")


def transact(id: int, at: str, diff: Any, key: str, action: str, options: Options) -> Transact:
    """The request of a write with options; raises `Refused` for what cannot be sent, TypeError for an unknown one."""
    known(options)
    base = options.get("base")
    if "key" in options and not _is_key(options["key"]):  # which may stand in a header
        detail = "an idempotency key is 1 to 128 printable ASCII characters"
        raise refused(Problem("invalid_parameter", detail, parameter="key"))
    return Transact(
        id,
        diff,
        options.get("key", key),
        at,
        options.get("action", action),
        options.get("user"),
        base.cursor if isinstance(base, Written) else base,
        options.get("m"),
        options.get("ack"),
        _conditions(at, options) or None,
    )


def _is_key(key: str) -> bool:
    return 0 < len(key) <= 128 and key.isascii() and key.isprintable()


def _conditions(at: str, options: Options) -> list[dict[str, Any]]:
    found = [_condition(each) for each in options.get("conditions", ())]
    if "etag" in options:
        found.append({"path": at, "etag": options["etag"]})
    if "exists" in options:
        found.append({"path": at, "exists": options["exists"]})
    return found


def _condition(given: dict[str, Any]) -> dict[str, Any]:
    condition = dict(given)
    path: Path = condition.get("path", "")
    condition["path"] = pointer(path)
    if "equals" in condition:
        condition["equals"] = builtins(condition["equals"])
    since = condition.get("unchanged_since")
    if isinstance(since, Written):
        condition["unchanged_since"] = since.cursor
    return condition
