"""Where a server is: `http://`, `https://` or `unix:` in a URL, and what is sent along with each request. Pure."""

from typing import NamedTuple
from urllib.parse import urlsplit


class Address(NamedTuple):
    """A server: the URL that its endpoints' paths follow, the path of its socket, the headers of each request."""

    url: str
    unix: str | None
    headers: dict[str, str]


def address_of(url: str, token: str | None = None) -> Address:
    """The address that a URL names; raises ValueError.

    `unix:/run/kantad.sock` (also `unix:///run/kantad.sock`) names a socket by its absolute path. A token belongs into
    `token`, never into the URL.
    """
    if token and not (token.isascii() and token.isprintable()):
        raise ValueError("a token is printable ASCII")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("///") else path
        if not path.startswith("/") or path.startswith("//"):
            raise ValueError(f"unix: is followed by the absolute path of a socket: {url}")
        return Address("http://localhost", path, headers)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"a URL begins with http://, https:// or unix: {url}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("a URL has no user, no query and no fragment; a token is given as token=")
    if "v1" in parts.path.split("/"):  # of the API's own: what the server finds there is a value, or nothing
        raise ValueError(f"a URL ends before /v1: {url}")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(f"a URL's port is a number up to 65535: {url}") from None
    return Address(url.rstrip("/"), None, headers)
