"""Section 11 of the contract: flags win over the environment, which wins over the file; bad values are named."""

from pathlib import Path
from typing import Any

import pytest

from kantad.config import SETTINGS, UsageError, load
from kantad.values.retention import Retention

GOOD: dict[str, tuple[str, Any]] = {
    "db": ("other.kantadb", "other.kantadb"),
    "host": ("::1", "::1"),
    "port": ("0", 0),
    "unix": ("/tmp/socket", "/tmp/socket"),
    "format": ("msgpack", "msgpack"),
    "readonly": ("true", True),
    "retain": ("30d", Retention("30d", None, 30 * 24 * 3600 * 1_000_000)),
    "ack": ("written", "written"),
    "flush-interval": ("0.5", 0.5),
    "insecure": ("true", True),
    "cors-origin": ("https://app.example", ("https://app.example",)),
    "allowed-host": ("db.example", ("db.example",)),
    "max-body": ("1MiB", 1 << 20),
    "max-depth": ("64", 64),
    "max-segments": ("64", 64),
    "max-target": ("4k", 4096),
    "max-header": ("32k", 32768),
    "max-connections": ("5", 5),
    "max-subscriptions": ("6", 6),
    "max-in-flight": ("7", 7),
    "header-timeout": ("1.5", 1.5),
    "body-timeout": ("2", 2.0),
    "idle-timeout": ("3", 3.0),
    "no-fast-path": ("true", True),
    "log-level": ("debug", "debug"),
    "log-format": ("json", "json"),
    "schema": ("model:Data", "model:Data"),
    "migrations": ("steps", "steps"),
    "log-changes": ("true", True),
    "resolver": ("names:name_of", "names:name_of"),
}


def variable(name: str) -> str:
    return f"KANTAD_{name.upper().replace('-', '_')}"


def flag(name: str, text: str) -> list[str]:
    return [f"--{name}"] if text == "true" else [f"--{name}", text]


def test_there_is_a_default_for_everything() -> None:
    config = load([], {})
    assert (config.get("db"), config.get("host"), config.get("port")) == ("data.kantadb", "127.0.0.1", 8700)
    assert (config.get("ack"), config.get("flush-interval")) == ("durable", 0.1)
    assert (config.get("max-body"), config.get("max-depth")) == (16 << 20, 128)


@pytest.mark.parametrize("name", GOOD)
def test_every_setting_is_a_flag_a_variable_and_a_key_of_the_file(name: str, tmp_path: Path) -> None:
    text, value = GOOD[name]
    file = tmp_path / "kantad.toml"
    file.write_text(f'{name} = "{text}"\n')
    assert load(flag(name, text), {}).get(name) == value
    assert load([], {variable(name): text}).get(name) == value
    assert load(["--config", str(file)], {}).get(name) == value
    assert load([], {"KANTAD_CONFIG": str(file)}).get(name) == value


def test_the_settings_tried_are_all_there_are() -> None:
    assert {setting.name for setting in SETTINGS} == set(GOOD) | {"tls-cert", "tls-key"}


def test_flags_win_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "kantad.toml"
    file.write_text(
        'port = 1\nack = "applied"\nmax_depth = 7\ncors-origin = ["https://a.example", "https://b.example"]\n'
    )
    environment = {"KANTAD_PORT": "2", "KANTAD_ACK": "written", "KANTAD_CONFIG": "/none", "KANTAD_OTHER": "mine"}
    config = load(["--port", "3", "--config", str(file)], environment)
    assert (config.get("port"), config.get("ack"), config.get("max-depth")) == (3, "written", 7)
    assert config.get("cors-origin") == ("https://a.example", "https://b.example")


def test_lists_are_repeated_flags_or_separated_by_commas() -> None:
    origins = ("https://a.example", "https://b.example:8443")
    assert load([f"--cors-origin={origin}" for origin in origins], {}).get("cors-origin") == origins
    assert load([], {"KANTAD_CORS_ORIGIN": ",".join(origins)}).get("cors-origin") == origins


BAD = [
    ("port", "65536"),
    ("port", "-1"),
    ("port", "x"),
    ("port", "\u0661"),
    ("port", "9" * 5000),
    ("port", ""),
    ("db", ""),
    ("ack", "soon"),
    ("retain", "30"),
    ("format", "xml"),
    ("flush-interval", "0"),
    ("flush-interval", "nan"),
    ("flush-interval", "1e99"),
    ("flush-interval", "1_0"),
    ("flush-interval", "\u0661"),
    ("max-body", "0"),
    ("max-body", "2G"),
    ("max-body", "x"),
    ("max-body", "-5"),
    ("max-depth", "1"),
    ("max-depth", "1000"),
    ("max-segments", "0"),
    ("max-segments", "257"),
    ("max-connections", "0"),
    ("header-timeout", "0"),
    ("log-level", "loud"),
    ("log-format", "xml"),
    ("cors-origin", "*"),
    ("cors-origin", "null"),
    ("cors-origin", "app.example"),
    ("cors-origin", "https://app.example/"),
]


@pytest.mark.parametrize(("name", "text"), BAD, ids=[f"{name}={text[:12]}" for name, text in BAD])
def test_a_bad_value_is_refused_with_its_name(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "kantad.toml"
    file.write_text(f'{name} = "{text}"\n')
    with pytest.raises(UsageError, match=f"--{name}"):
        load([f"--{name}={text}"], {})
    with pytest.raises(UsageError, match=variable(name)):
        load([], {variable(name): text})
    with pytest.raises(UsageError, match=name):
        load(["--config", str(file)], {})


@pytest.mark.parametrize(
    "text",
    [
        "colour = 1",
        "port = [1]",
        "db = {a = 1}",
        "db = 2026-01-01",
        "port = ",
        "\xff",
        'db = "\\u0000"',
        "[port]\nx = 1",
        "max-body = 1\nmax_body = 2",
    ],
)
def test_a_bad_file_is_refused_with_its_name(text: str, tmp_path: Path) -> None:
    file = tmp_path / "kantad.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"kantad\.toml"):
        load(["--config", str(file)], {})
    with pytest.raises(UsageError, match="none"):
        load(["--config", str(tmp_path / "none")], {})


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.0.2.1", "db.example", "127.evil.example", "localhost.evil.example"]
)
def test_an_address_other_than_loopback_needs_insecure(host: str) -> None:
    with pytest.raises(UsageError, match="--insecure"):
        load(["--host", host], {})
    assert load(["--host", host, "--insecure"], {}).get("host") == host
    assert load(["--unix", "/tmp/s"], {"KANTAD_HOST": host}).get("host") == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_nothing(host: str) -> None:
    assert load(["--host", host], {}).get("host") == host


def test_unknown_flags_and_halves_of_pairs_are_refused() -> None:
    for arguments in (["--colour"], ["--po", "1"], ["extra"], ["--port"], ["--tls-cert", "x"], ["--tls-key", "x"]):
        with pytest.raises(UsageError):
            load(arguments, {})


def test_a_unix_socket_and_an_address_exclude_each_other_where_they_are_given_alike(tmp_path: Path) -> None:
    for name, text in (("host", "127.0.0.1"), ("port", "8700")):
        file, both = tmp_path / "unix.toml", tmp_path / "both.toml"
        file.write_text('unix = "s"\n')
        both.write_text(f'unix = "s"\n{name} = "{text}"\n')
        for arguments, environment in (
            (["--unix", "s", f"--{name}", text], {}),
            ([f"--{name}", text], {"KANTAD_UNIX": "s"}),
            ([f"--{name}", text, "--config", str(file)], {}),
            ([], {"KANTAD_UNIX": "s", variable(name): text}),
            (["--config", str(both)], {}),
        ):
            with pytest.raises(UsageError, match=f"--unix and --{name}"):
                load(arguments, environment)
        assert load(["--unix", "s"], {variable(name): text}).get("unix") == "s"
        assert load(["--unix", "s", "--config", str(both)], {}).get("unix") == "s"


def test_variables_that_are_no_setting_are_noticed() -> None:
    environment = {"KANTAD_PROT": "1", "KANTAD_CONFIG": "", "KANTAD_TEST_INPUT": "x", "KANTAD_ACK": "written", "X": "y"}
    assert load([], environment).unknown == ("KANTAD_PROT",)
