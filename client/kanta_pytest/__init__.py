"""The pytest plugin: `kanta_url`, a server for each test that asks for it, and `kanta`, a client of it.

Both are plain fixtures, the server runs in a thread: they work with asynchronous tests of every kind,
and need no plugin of those. Override `kanta_data` to begin with something. A package of its own, so that
test runs that use none of it import nothing but this file.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kanta_client import SyncKantaClient


@pytest.fixture
def kanta_data() -> Any:
    """What the databases of the tests hold at first: an object."""
    return {}


@pytest.fixture
def kanta_url(kanta_data: Any) -> Iterator[str]:
    """The URL of a server of the test's own, which is stopped and forgotten behind it."""
    from kanta_client.testing import serve

    with serve(data=kanta_data) as url:
        yield url


@pytest.fixture
def kanta(kanta_url: str) -> "Iterator[SyncKantaClient]":
    """A client of that server, whose methods wait."""
    from kanta_client import SyncKantaClient

    with SyncKantaClient(kanta_url) as client:
        yield client
