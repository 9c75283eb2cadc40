"""Section 7 of the contract, as far as it is built: status, health, readiness, metrics, snapshots."""

import pytest

from kantad import __version__
from tests.serving import Serving


async def test_status_tells_what_is_served(serving: Serving) -> None:
    written = (await serving.put("/x", 1)).json
    status = (await serving.ask("GET", "/v1/status")).json
    assert (status["version"], status["rev"], status["cursor"]) == (__version__, 1, written["cursor"])
    assert (status["durable_rev"], status["oldest"], status["records"], status["ack"]) == (1, 0, 1, "durable")
    assert (status["file"]["format"], status["subscribers"]) == ("json", 0)
    assert status["file"]["bytes"] == len(serving.mark()[3])
    assert status["uptime"] >= 0


async def test_a_snapshot_is_written_on_request(serving: Serving) -> None:
    written = (await serving.put("/x", 1)).json
    got = await serving.ask("POST", "/v1/snapshot")
    assert (got.status, got.json["rev"], got.json["cursor"]) == (200, 1, written["cursor"])
    assert got.json["bytes"] > 0
    assert serving.mark()[3].splitlines()[-1].startswith(b"SNAPSHOT ")
    await serving.restart()
    assert await serving.value() == {"x": 1}
    assert (await serving.ask("GET", "/v1/status")).json["cursor"] == written["cursor"]


async def test_ready_is_whether_it_can_take_writes(serving: Serving) -> None:
    assert (await serving.ask("GET", "/readyz")).json == {"status": "ready", "rev": 0}
    serving.engine.retire()
    got = await serving.ask("GET", "/readyz")
    assert (got.status, got.code, got.headers["retry-after"]) == (503, "shutting_down", "1")
    assert (await serving.ask("GET", "/healthz")).status == 200


@pytest.mark.parametrize("name", ["kantad_revision", "kantad_log_bytes", "kantad_connections", "kantad_writable"])
async def test_metrics_are_prometheus_text(serving: Serving, name: str) -> None:
    got = await serving.ask("GET", "/metrics")
    assert got.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = got.body.decode()
    assert f"# TYPE {name} gauge\n{name} " in text
    assert text.endswith("\n")
