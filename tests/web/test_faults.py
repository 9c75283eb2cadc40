"""What must not happen, happening: an answer that says so, one entry in the log, and the server goes on."""

import logging
from typing import Any

import pytest

from kantad.web import operations
from kantad.web.faults import MOST, Faults
from tests.serving import Serving, request
from tests.web.ws_kit import Peer

PUT = request("PUT", "/v1/data/a", b"1")


def breaks(*arguments: Any, **options: Any) -> Any:
    raise ZeroDivisionError("planted")


def faults(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("target", ["/v1/data/a", "/v1/data/a?user=u"], ids=["fast", "plain"])
async def test_a_fault_in_a_write_is_a_500_and_the_end_of_its_connection(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    put = request("PUT", target, b"1")
    wire = await serving.connect()
    wire.send(put)
    assert (await wire.answer()).status == 200
    with monkeypatch.context() as broken:
        broken.setattr(serving.engine, "write", breaks)
        broken.setattr(serving.engine, "transact", breaks)
        wire.send(put)
        got = await wire.answer()
        assert (got.status, got.headers["connection"], got.body[:7]) == (500, "close", b"a fault")
        assert await wire.closed() == b""
    (record,) = faults(caplog)
    assert "fault while handling" in record.getMessage()
    assert (await serving.ask("PUT", "/v1/data/b", 2)).status == 200


SINGLE: list[dict[str, Any]] = [{"id": 1, "op": "transact", "diff": {"a": 1}}]


@pytest.mark.parametrize(
    "requests",
    [SINGLE, SINGLE * 2, [{"id": 1, "op": "transact", "diff": {"a": 1}, "a": "x"}], [{"id": 1, "op": "changes"}]],
    ids=["one", "lane", "transact", "later"],
)
async def test_a_fault_in_a_message_closes_its_websocket_with_1011(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, requests: list[dict[str, Any]]
) -> None:
    peer, other = await Peer.open(serving), await Peer.open(serving)
    with monkeypatch.context() as broken:
        broken.setattr(serving.engine, "write", breaks)
        broken.setattr(serving.engine, "transact", breaks)
        broken.setattr(operations, "write_all", breaks)
        broken.setattr(operations, "list_changes", breaks)
        peer.send(*requests, single=len(requests) == 1)
        closed = await peer.ended()
    assert closed.code == 1011
    assert len(faults(caplog)) == 1
    assert (await other.ask("transact", diff={"b": 2}))["rev"] == 1
    assert await serving.value("") == {"b": 2}


def test_a_storm_of_faults_is_logged_a_few_times(caplog: pytest.LogCaptureFixture) -> None:
    log = Faults()
    for _ in range(50):
        try:
            breaks()
        except ZeroDivisionError:
            log.log("testing")
    assert len(faults(caplog)) == MOST
