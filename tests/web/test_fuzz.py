"""Whatever is sent: never a 5xx, never a traceback, the server answers on, the file is whole afterwards."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving import TIMEOUT, Serving

METHODS = st.sampled_from(["GET", "HEAD", "PUT", "PATCH", "DELETE", "POST", "OPTIONS", "TRACE", "QUERY", "BREW"])
SEGMENTS = st.sampled_from(
    [
        "a",
        "b",
        "l",
        "0",
        "-",
        "01",
        "$x",
        "$delete",
        "..",
        "",
        "%2F",
        "%FF",
        "~1",
        "__proto__",
        "%00",
        "?",
        "&",
        "base=0",
        "ack=applied",
        "wait=0",
        "limit=1",
        "user=%0A",
    ]
)
ROOTS = st.sampled_from(["/v1/data", "/v1/data", "/v1/keys", "/v1/transaction", "/v1/status", "/", "/healthz", "/v1"])
TARGETS = st.builds(lambda root, rest: "/".join([root, *rest]), ROOTS, st.lists(SEGMENTS, max_size=4))
HEADERS = st.sampled_from(
    [
        "Content-Type: application/msgpack",
        "Content-Type: application/merge-patch+json",
        "Content-Type: application/json-patch+json",
        "Accept: application/msgpack",
        'If-Match: "x"',
        "If-Match: *",
        "If-None-Match: *",
        'If-None-Match: W/"a", "b"',
        "If-None-Match: x",
        "Idempotency-Key: k",
        "Idempotency-Key: \xff",
        "Transfer-Encoding: chunked",
        "Content-Length: 99999999999999999999",
        "Expect: 100-continue",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Connection: close",
        "Origin: null",
        "Content-Encoding: gzip",
        ": nameless",
        "X: \x0b",
    ]
)
LEAVES = st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(max_size=4)
NAMES = st.sampled_from(
    [
        "a",
        "b",
        "l",
        "$delete",
        "$insert",
        "$replace",
        "$$x",
        "$x",
        "0",
        "op",
        "path",
        "value",
        "from",
        "diff",
        "if",
        "base",
        "id",
    ]
) | st.text(max_size=2)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)


def text_of(value: object) -> bytes:
    import json

    return json.dumps(value).encode()  # NaN and lone surrogates included


BODIES = JSON.map(text_of) | st.binary(max_size=40)
CUTS = st.integers(0, 400)


def message(method: str, target: str, headers: list[str], body: bytes) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *headers]
    if not any(line.startswith(("Content-Length", "Transfer")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


MESSAGES = st.builds(message, METHODS, TARGETS, st.lists(HEADERS, max_size=3), BODIES) | st.binary(max_size=60)


async def tried(path: str, fast_path: bool, script: list[tuple[bytes, int]]) -> None:
    serving = Serving(path, fast_path=fast_path)
    await serving.start()
    try:
        await serving.put("", {"a": {"b": 1}, "l": [1, 2]})
        wire = await serving.connect()
        for data, cut in script:
            wire.send(data[:cut])
            await asyncio.sleep(0)
            wire.send(data[cut:])
        wire.writer.write_eof()
        async with asyncio.timeout(TIMEOUT):
            try:
                said = await wire.reader.read()
            except ConnectionError:
                said = b""
        assert b"HTTP/1.1 5" not in said, said
        assert (await serving.ask("PUT", "/v1/data/alive", serving.engine.rev)).status == 200
    finally:
        await serving.stop()


@pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "plain"])
def test_no_input_is_an_error_of_the_server(tmp_path: Path, caplog: pytest.LogCaptureFixture, fast_path: bool) -> None:
    counter = iter(range(10**6))

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(MESSAGES, CUTS), min_size=1, max_size=4))
    def play(script: list[tuple[bytes, int]]) -> None:
        asyncio.run(tried(str(tmp_path / f"{next(counter)}.kantadb"), fast_path, script))
        assert not [record for record in caplog.records if record.exc_info]

    play()
