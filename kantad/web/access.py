"""Who may ask at all: the checks in front of routing, on every request of every kind.

A page on the web must not reach a daemon on localhost: `Host` must name this server (DNS
rebinding), `Origin` must be its own or allowed (CSRF). Deny comes first; only what passes here is
routed. The fast path trusts header blocks that passed here before, byte for byte.
"""

import re
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11

from kantad.values.errors import Problem
from kantad.web.body import Limits

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@/]+)(?::[0-9]*)?")  # RFC 9110 section 7.2: a host, and maybe a port


@dataclass
class Access:
    """What the flags allow. `scheme` is what the server speaks."""

    scheme: str = "http"
    hosts: frozenset[str] = LOOPBACK
    origins: frozenset[str] = field(default_factory=frozenset)

    def admit(self, request: web.BaseRequest) -> str | None:
        """Raise the `Problem` of a request that may not ask; returns an allowed foreign origin, if any."""
        return self._check_origin(request, self._check_host(request))

    def check_form(self, request: web.BaseRequest, limits: Limits) -> None:
        """Raise the `Problem` of a request that cannot be routed as it is."""
        if request.version not in (HttpVersion11, HttpVersion10):
            raise Problem("invalid_parameter", "HTTP/1.1 is spoken here")
        target = request.raw_path
        if not target.startswith("/") or "#" in target:
            raise Problem("invalid_path", "the request target begins with '/' and has no fragment")
        if len(target) > limits.max_target:
            raise limits.target_too_long()
        size = sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
        if size > limits.max_header:
            raise limits.header_too_large()
        if request.headers.get("Transfer-Encoding", "chunked").strip().lower() != "chunked":
            raise Problem("unsupported_media_type", "chunked is the only transfer coding")
        if "Content-Encoding" in request.headers:
            raise Problem("unsupported_media_type", "content codings are not supported on requests")

    def _check_host(self, request: web.BaseRequest) -> str:
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1:
            raise Problem("host_refused", "a request has exactly one Host")
        name = _HOST.fullmatch(hosts[0].strip().lower())
        if name is None or not self._is_ours(name[1].removesuffix("."), request):
            raise Problem("host_refused", "this Host is not served here (--allowed-host adds one)")
        return hosts[0].strip()

    def _is_ours(self, name: str, request: web.BaseRequest) -> bool:
        if name in self.hosts:
            return True
        local = request.transport.get_extra_info("sockname") if request.transport is not None else None
        return isinstance(local, tuple) and name in (local[0], f"[{local[0]}]")

    def _check_origin(self, request: web.BaseRequest, host: str) -> str | None:
        origins = request.headers.getall("Origin", [])
        if not origins:
            site = request.headers.get("Sec-Fetch-Site", "none")
            navigation = request.method in ("GET", "HEAD") and request.headers.get("Sec-Fetch-Mode") == "navigate"
            if site in ("cross-site", "same-site") and not navigation:
                raise Problem("origin_refused", "cross-origin requests are refused (--cors-origin allows an origin)")
            return None
        if len(origins) == 1:
            origin = origins[0].strip()
            if origin.lower() == f"{self.scheme}://{host}".lower():
                return None
            if origin in self.origins:
                return origin
        raise Problem("origin_refused", "cross-origin requests are refused (--cors-origin allows an origin)")
