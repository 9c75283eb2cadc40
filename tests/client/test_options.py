"""What a write may be given."""

from typing import Any

import msgspec
import pytest
from kanta_client.errors import Invalid
from kanta_client.messages import Message, decode_messages, encode
from kanta_client.options import Options, transact
from kanta_client.records import Written, moment

WRITTEN = Written(7, "7-abc", "2026-01-02T03:04:05Z", True)


def request(**options: Any) -> dict[str, Any]:
    given: Options = options  # type: ignore[assignment]
    made: dict[str, Any] = msgspec.json.decode(encode(transact(1, "/p", {"a": 1}, "made", "put", given)))
    return made


def test_a_plain_write_says_only_what_it_is() -> None:
    assert request() == {"op": "transact", "id": 1, "diff": {"a": 1}, "key": "made", "path": "/p", "a": "put"}


def test_every_option_is_sent() -> None:
    made = request(user="u", ack="applied", key="given", base=WRITTEN, m="2026", action="act", timeout=3)
    assert made | {"u": "u", "ack": "applied", "key": "given", "base": "7-abc", "m": "2026", "a": "act"} == made
    assert request(base=5)["base"] == 5


def test_conditions_are_joined_and_their_paths_and_values_are_written_out() -> None:
    given = [
        {"path": ("a/b", 1), "equals": (1, 2)},
        {"path": "/c", "unchanged_since": WRITTEN},
        {"unchanged_since": 3},
    ]
    assert request(conditions=iter(given), etag="e", exists=True)["if"] == [
        {"path": "/a~1b/1", "equals": [1, 2]},
        {"path": "/c", "unchanged_since": "7-abc"},
        {"path": "", "unchanged_since": 3},
        {"path": "/p", "etag": "e"},
        {"path": "/p", "exists": True},
    ]
    assert given[1]["unchanged_since"] is WRITTEN  # the caller's is left as it is


def test_an_option_that_there_is_not_is_told() -> None:
    with pytest.raises(TypeError, match="no option exist"):
        request(exist=False)


def test_a_condition_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(Invalid):
        request(conditions=[{"path": "no pointer"}])


@pytest.mark.parametrize("key", ["", "x" * 129, "ä", "a\r\nX-Header: 1"])
def test_a_key_that_is_none_is_refused_before_it_stands_in_a_header(key: str) -> None:
    with pytest.raises(Invalid, match="idempotency key"):
        request(key=key)


def test_messages_are_read_singly_and_in_lists() -> None:
    record = b'{"sub":3,"event":"change","rev":9,"cursor":"9-a","ts":"t","a":"put","id":"key","diff":{"n":1}}'
    [event] = decode_messages(b"[" + record + b"]")  # type: ignore[misc]
    assert isinstance(event, Message)
    change = event.change("value", "change")
    assert (change.rev, change.key, change.action, change.patch, change.value) == (9, "key", "put", {"n": 1}, "value")
    answer = decode_messages(b'{"id":1,"rev":2,"cursor":"2-a","ts":"2026-01-02T03:04:05Z","changed":true}')
    assert isinstance(answer, Message)
    assert answer.change().key is None
    assert answer.written("k") == Written(2, "2-a", "2026-01-02T03:04:05Z", True, False, "k", None)
    assert answer.written().time == WRITTEN.time
    assert moment("").year == 1970
    assert change.time.year == 1970 if not change.ts else True
