"""Section 10 of the contract: no page on the web reaches a daemon on localhost."""

import pytest

from kantad.web.access import Access
from tests.serving import Serving, request

OWN = "https://app.example"
TARGETS = [
    ("GET", "/v1/data"),
    ("PUT", "/v1/data/x"),
    ("POST", "/v1/transaction"),
    ("GET", "/nowhere"),
    ("GET", "/healthz"),
    ("DELETE", "/v1/status"),
]


@pytest.fixture
async def open_to_app(unstarted: Serving) -> Serving:
    await unstarted.start(access=Access(origins=frozenset({OWN, "http://localhost:3000"})))
    return unstarted


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8700", "127.0.0.1", "127.0.0.1:1", "[::1]:8700", "[::1]", "localhost."]
)
async def test_the_loopback_names_are_served(serving: Serving, host: str) -> None:
    assert (await serving.ask("GET", "/v1/data", None, f"Host: {host}")).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil-localhost",
        "localhost@evil.example",
        "127.0.0.2",
        "127.0.0.1.nip.io",
        "0.0.0.0",
        "localhost:80:80",
        "localhost:x",
        "[::1",
        "[::2]",
        "::1",
        "",
        "2130706433",
        "127.1",
        "localhost/evil",
        "[localhost]",
    ],
)
@pytest.mark.parametrize("fast_path", [True, False], indirect=True, ids=["fast", "plain"])
async def test_another_host_is_421_whatever_is_asked(serving: Serving, host: str) -> None:
    await serving.put("/x", 1)
    before = serving.mark()
    for method, target in TARGETS:
        for _ in range(2):
            got = await serving.ask(method, target, {"diff": {"x": 2}}, f"Host: {host}", "X: 1" * 5000)
            assert (got.status, got.code) == (421, "host_refused"), got
    assert serving.mark() == before


async def test_a_host_may_be_added(unstarted: Serving) -> None:
    await unstarted.start(access=Access(hosts=frozenset({"db.example"})))
    assert (await unstarted.ask("GET", "/v1/data", None, "Host: DB.example:443")).status == 200
    assert (await unstarted.ask("GET", "/v1/data", None, "Host: localhost")).status == 421


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://localhost:1",
        "https://localhost",
        "file://",
        "http://127.0.0.1",
        "",
        "http://localhost, https://app.example",
        "https://app.example.",
        "https://APP.example:443",
    ],
)
@pytest.mark.parametrize("fast_path", [True, False], indirect=True, ids=["fast", "plain"])
async def test_a_foreign_origin_is_403_and_not_reflected(open_to_app: Serving, origin: str) -> None:
    await open_to_app.put("/x", 1)
    before = open_to_app.mark()
    for method, target in [*TARGETS, ("OPTIONS", "/v1/data")]:
        for _ in range(2):
            got = await open_to_app.ask(method, target, {"diff": {"x": 2}}, f"Origin: {origin}")
            assert (got.status, got.code) == (403, "origin_refused"), got
            assert not [name for name in got.headers if name.startswith("access-control")]
    assert open_to_app.mark() == before


async def test_two_origins_are_403(open_to_app: Serving) -> None:
    got = await open_to_app.ask("GET", "/v1/data", None, f"Origin: {OWN}", f"Origin: {OWN}")
    assert got.status in (400, 403)


async def test_the_own_origin_is_allowed(serving: Serving) -> None:
    for host in ("localhost:8700", "127.0.0.1:8700"):
        got = await serving.ask("PUT", "/v1/data/x", 1, f"Host: {host}", f"Origin: http://{host}")
        assert got.status == 200
        assert "access-control-allow-origin" not in got.headers


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v1/data", 200),
        ("GET", "/v1/data/none", 404),
        ("PUT", "/v1/data/x", 200),
        ("PATCH", "/nowhere", 404),
        ("POST", "/v1/status", 405),
        ("PUT", "/v1/data/x?y=1", 400),
        ("POST", "/v1/data/x", 201),
    ],
)
async def test_an_allowed_origin_may_read_every_answer(
    open_to_app: Serving, method: str, target: str, status: int
) -> None:
    got = await open_to_app.ask(method, target, {}, f"Origin: {OWN}")
    assert got.status == status
    assert got.headers["access-control-allow-origin"] == OWN
    assert "origin" in got.headers["vary"].lower() or "vary: origin" in got.raw.decode().lower()
    assert "ETag" in got.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in got.headers


async def test_an_allowed_origin_may_read_an_early_refusal(open_to_app: Serving) -> None:
    got = await open_to_app.ask("PUT", "/v1/data/x", 1, f"Origin: {OWN}", "Content-Encoding: gzip")
    assert (got.status, got.headers["access-control-allow-origin"]) == (415, OWN)


async def test_a_preflight_is_answered_for_an_allowed_origin_only(open_to_app: Serving) -> None:
    asked = ("Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: content-type")
    got = await open_to_app.ask("OPTIONS", "/v1/data/x", None, f"Origin: {OWN}", *asked)
    assert (got.status, got.body, got.headers["access-control-allow-origin"]) == (204, b"", OWN)
    assert "PUT" in got.headers["access-control-allow-methods"]
    for name in ("Content-Type", "If-Match", "If-None-Match", "Idempotency-Key"):
        assert name in got.headers["access-control-allow-headers"]
    refused = await open_to_app.ask("OPTIONS", "/v1/data/x", None, "Origin: https://evil.example", *asked)
    assert refused.status == 403


async def test_cors_is_off_by_default(serving: Serving) -> None:
    got = await serving.ask("OPTIONS", "/v1/data", None, f"Origin: {OWN}", "Access-Control-Request-Method: PUT")
    assert (got.status, got.code) == (403, "origin_refused")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_cross_site_request_without_an_origin_is_403(serving: Serving, site: str) -> None:
    for method in ("GET", "PUT", "POST"):
        got = await serving.ask(method, "/v1/data/x", 1, f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: no-cors")
        assert (got.status, got.code) == (403, "origin_refused")
    assert (await serving.ask("GET", "/v1/data", None, "Sec-Fetch-Site: same-origin")).status == 200
    assert (await serving.ask("GET", "/v1/data", None, "Sec-Fetch-Site: none")).status == 200
    followed = await serving.ask("GET", "/v1/data", None, f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: navigate")
    assert followed.status == 200
    form = await serving.ask("POST", "/v1/data/x", 1, f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: navigate")
    assert form.status == 403


async def test_method_overrides_and_upgrades_are_not_a_way_round(serving: Serving) -> None:
    await serving.put("/x", 1)
    got = await serving.ask("GET", "/v1/data/x", None, "X-HTTP-Method-Override: DELETE", "X-Original-URL: /v1/data/y")
    assert got.json == 1
    wire = await serving.connect()
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Origin: https://evil.example", "Sec-WebSocket-Version: 13")
    wire.send(request("GET", "/v1/data/x", None, *upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
    assert (await wire.answer()).status == 403
    assert serving.engine.rev == 1


async def test_forwarded_headers_do_not_speak_for_the_host(serving: Serving) -> None:
    for name in ("X-Forwarded-Host", "Forwarded", "X-Host"):
        got = await serving.ask("GET", "/v1/data", None, "Host: evil.example", f"{name}: localhost")
        assert got.status == 421
