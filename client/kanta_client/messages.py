"""The messages of the WebSocket (section 6 of the contract) as typed structs: what is asked, what is answered. Pure."""

from typing import Any

import msgspec

from kanta_client.records import Change, Kind, Written


class Transact(
    msgspec.Struct, tag_field="op", tag="transact", omit_defaults=True, rename={"conditions": "if", "want": "return"}
):
    """A write."""

    id: int
    diff: Any
    key: str
    path: str = ""
    a: str = ""
    u: str | None = None
    base: int | str | None = None
    m: str | None = None
    ack: str | None = None
    conditions: list[dict[str, Any]] | None = None
    dry_run: bool = False
    want: str | None = None


class Get(msgspec.Struct, tag_field="op", tag="get", omit_defaults=True):
    """A read."""

    id: int
    path: str = ""
    rev: int | str | None = None
    at: str | None = None


class Keys(msgspec.Struct, tag_field="op", tag="keys", omit_defaults=True):
    """A read of keys."""

    id: int
    path: str
    limit: int
    after: str | None = None
    rev: int | None = None


class Message(msgspec.Struct, gc=False):
    """An answer, or an event of a subscription (where there is an `event`)."""

    id: int | float | str | None = None
    sub: int | float | str | None = None
    event: str | None = None
    rev: int = -1
    cursor: str = ""
    ts: str = ""
    changed: bool = False
    replayed: bool = False
    deleted: bool = False
    reset: bool = False
    a: str = ""
    v: int = 0
    u: str | None = None
    m: str | None = None
    key: str | None = None
    etag: str = ""
    diff: Any = None
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: dict[str, Any] | None = None
    type: str = ""
    size: int = 0
    keys: list[str] = []
    next: str | None = None
    changes: "list[Message]" = []

    def written(self, key: str | None = None) -> Written:
        """The answer of a write."""
        return Written(self.rev, self.cursor, self.ts, self.changed, self.replayed, key, self.diff)

    def change(self, value: Any = None, kind: Kind = "change") -> Change:
        """An event, or a record of a listing."""
        return Change(
            rev=self.rev,
            cursor=self.cursor,
            ts=self.ts,
            action=self.a,
            user=self.u,
            m=self.m,
            key=self.id if isinstance(self.id, str) else None,
            schema=self.v,
            patch=self.diff,
            deleted=self.deleted,
            value=value,
            kind=kind,
        )


encode = msgspec.json.Encoder().encode
decode_messages = msgspec.json.Decoder(list[Message] | Message).decode
