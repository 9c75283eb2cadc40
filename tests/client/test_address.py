"""What a URL names."""

import pytest
from kanta_client.address import address_of


@pytest.mark.parametrize(
    ("url", "base", "unix"),
    [
        ("http://127.0.0.1:8700", "http://127.0.0.1:8700", None),
        ("https://db.example/", "https://db.example", None),
        ("http://[::1]:8700//", "http://[::1]:8700", None),
        ("https://example.org/kanta/", "https://example.org/kanta", None),
        ("unix:/run/kantad.sock", "http://localhost", "/run/kantad.sock"),
        ("unix:///run/kantad.sock", "http://localhost", "/run/kantad.sock"),
    ],
)
def test_a_url_names_a_server(url: str, base: str, unix: str | None) -> None:
    assert address_of(url) == (base, unix, {})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8700",
        "ftp://x",
        "http://",
        "unix:",
        "unix:run/x",
        "unix://host/x",
        "http://user@x",
        "http://x?a=1",
    ]
    + ["http://x#f", "http://x/v1", "http://x/kanta/v1/data/", "http://x/v1/ws", "http://x:99999", "http://x:a"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|unix"):
        address_of(url)


def test_a_token_goes_into_a_header_and_must_fit_there() -> None:
    assert address_of("http://x", "t0ken").headers == {"Authorization": "Bearer t0ken"}
    for token in ("two\nlines", "ü"):
        with pytest.raises(ValueError, match="token"):
            address_of("http://x", token)
