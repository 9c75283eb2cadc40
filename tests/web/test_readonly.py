"""Serving a file read-only: everything is read, nothing is written, whatever happens to the file meanwhile."""

import os
from pathlib import Path

import pytest

from tests.serving import Serving
from tests.store.logs import every_kind
from tests.web.ws_kit import Peer

WRITES = [
    ("PUT", "/v1/data/a", 1),
    ("PATCH", "/v1/data", {"a": 2}),
    ("DELETE", "/v1/data/a", None),
    ("POST", "/v1/data/list", 1),
    ("POST", "/v1/transaction", {"diff": {"a": 2}}),
    ("POST", "/v1/transaction", {"diff": {"a": 2}, "dry_run": True}),
    ("POST", "/v1/revert", {"rev": 1}),
    ("POST", "/v1/snapshot", None),
]


@pytest.fixture(params=["json", "msgpack"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "data.kantadb"
    path.write_bytes(bytes(every_kind(request.param).data))
    return path


def folder(path: Path) -> dict[str, bytes]:
    return {name: (path.parent / name).read_bytes() for name in os.listdir(path.parent)}


@pytest.mark.parametrize("fast_path", [True, False], indirect=True, ids=["fast", "plain"])
async def test_every_write_is_refused_and_no_byte_is_changed(path: Path, unstarted: Serving) -> None:
    before = folder(path)
    await unstarted.start(readonly=True)
    for method, target, body in WRITES:
        for _ in range(3):  # the third of a kind may take the fast path
            got = await unstarted.ask(method, target, body)
            assert (got.status, got.code) == (403, "read_only"), (method, target)
    peer = await Peer.to(unstarted.port)
    for more in ({}, {"key": "k"}, {"if": []}, {"dry_run": True}):
        answer = await peer.ask("transact", diff={"a": 2}, **more)
        assert (answer["error"]["code"], answer["error"]["status"]) == ("read_only", 403)
    await peer.close()
    assert await unstarted.value("/n") == 2
    await unstarted.stop()
    assert folder(path) == before


async def test_reads_reads_of_the_past_and_feeds_are_served(path: Path, unstarted: Serving) -> None:
    await unstarted.start(readonly=True)
    assert (await unstarted.ask("GET", "/v1/data/n?rev=7")).json == 1
    listed = (await unstarted.ask("GET", "/v1/changes")).json
    assert [each["rev"] for each in listed["changes"]] == list(range(1, 10))
    status = (await unstarted.ask("GET", "/v1/status")).json
    assert (status["readonly"], status["rev"]) == (True, 9)
    got = await unstarted.ask("GET", "/readyz")
    assert (got.status, got.code, "read-only" in got.json["detail"]) == (503, "unavailable", True)
    assert (await unstarted.ask("GET", "/healthz")).status == 200
    assert b"\nkantad_writable 0\n" in (await unstarted.ask("GET", "/metrics")).body
