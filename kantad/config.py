"""The settings of the daemon: flags, environment, a TOML file; flags win, then the environment.

`SETTINGS` is the one table of them: every flag `--name` is also `KANTAD_NAME` in the environment
and `name` in the file given with `--config`. A value that does not fit ends the start with exit
status 2.
"""

import argparse
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from shlex import quote
from typing import Any, Final, NamedTuple, NoReturn

from kantad import __version__
from kantad.engine.proposal import ACKS
from kantad.store.formats import format_name
from kantad.values.retention import MEANT, Retention, retention


class UsageError(Exception):
    """A flag, a variable or the configuration file is wrong (exit status 2)."""


class Setting(NamedTuple):
    """One setting: its flag, how its text is read, its default, what it is for."""

    name: str
    read: Callable[[str], Any]
    default: Any
    help: str
    many: bool = False  # may be given several times


@dataclass(frozen=True)
class OneOf:
    """Reads one of these words."""

    choices: tuple[str, ...]

    def __call__(self, text: str) -> str:
        """The word; raises ValueError where it is another one."""
        if text not in self.choices:
            raise ValueError(f"one of {', '.join(self.choices)}")
        return text


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"an integer from {low} to {high}")
        return int(text)

    return read


def _seconds(text: str) -> float:
    try:
        value = float(text) if text.isascii() and "_" not in text else -1.0
    except ValueError:
        value = -1.0
    if not 0.0 < value <= 3600.0:
        raise ValueError("seconds, more than 0 and at most 3600")
    return value


_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _size(text: str) -> int:
    number = text.lower().removesuffix("ib").removesuffix("b")
    unit = number[-1:] if number[-1:] in ("k", "m", "g") else ""
    digits = number.removesuffix(unit)
    if not (digits.isascii() and digits.isdigit()) or not 1 <= int(digits) * _UNITS[unit] <= 1 << 30:
        raise ValueError("bytes, such as 65536, 512k or 16MiB, at most 1 GiB")
    return int(digits) * _UNITS[unit]


def _switch(text: str) -> bool:
    if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        raise ValueError("true or false")
    return text.lower() in ("1", "true", "yes", "on")


def _origin(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\]]+)(:[0-9]+)?", text):
        raise ValueError("an origin, such as https://app.example or http://localhost:3000")
    return text


def _retention(text: str) -> Retention:
    return retention(text.lower())


_CODE: Final = re.compile(r"[\w.]+:[\w.]+")


def _code(text: str) -> str:
    if not _CODE.fullmatch(text):
        raise ValueError("module:name")
    return text


def _text(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("a text")
    return text


SETTINGS: Final = (
    Setting("db", _text, "data.kantadb", "the database file; created where there is none"),
    Setting("host", _text, "127.0.0.1", "the address to listen on"),
    Setting("port", _integer(0, 65535), 8700, "the port; 0 picks a free one"),
    Setting("unix", _text, None, "listen on this Unix socket, and on no address"),
    Setting(
        "format", format_name, None, "the format of a new file (default: json); where it is one's own, of any file"
    ),
    Setting("readonly", _switch, False, "serve a file that is there, without locking or changing it"),
    Setting("retain", _retention, None, f"drop older history by itself: keep {MEANT}"),
    Setting("ack", OneOf(tuple(ACKS)), "durable", "when a write is answered"),
    Setting("flush-interval", _seconds, 0.1, "seconds within which relaxed writes reach the disk"),
    Setting("schema", _text, None, "the type of the state, a msgspec.Struct; every write is checked against it"),
    Setting("migrations", _text, None, "a module with migrate_v1, migrate_v2, ..., run at the start where needed"),
    Setting("insecure", _switch, False, "allow an address other than loopback without access control"),
    Setting("tls-cert", _text, None, "the certificate chain, PEM"),
    Setting("tls-key", _text, None, "its private key, PEM"),
    Setting("cors-origin", _origin, (), "an origin whose pages may ask, such as https://app.example", many=True),
    Setting("allowed-host", _text, (), "a further Host name that is this server's", many=True),
    Setting("max-body", _size, 16 << 20, "the largest request body"),
    Setting("max-depth", _integer(2, 256), 128, "the deepest nesting of containers, the root being 1"),
    Setting("max-segments", _integer(1, 256), 128, "the longest path, in segments"),
    Setting("max-target", _size, 8 << 10, "the longest request target"),
    Setting("max-header", _size, 16 << 10, "the largest header block of a request"),
    Setting("max-connections", _integer(1, 1_000_000), 10_000, "connections at once"),
    Setting("max-subscriptions", _integer(1, 1_000_000), 1000, "subscriptions of a WebSocket"),
    Setting("max-in-flight", _integer(1, 1_000_000), 1024, "requests of a WebSocket under way"),
    Setting("header-timeout", _seconds, 10.0, "seconds in which a request's headers arrive"),
    Setting("body-timeout", _seconds, 30.0, "seconds in which a body makes progress"),
    Setting("idle-timeout", _seconds, 75.0, "seconds that a connection may be idle"),
    Setting("no-fast-path", _switch, False, "answer every request through aiohttp"),
    Setting("log-level", OneOf(("debug", "info", "warning", "error")), "info", "what is logged"),
    Setting("log-changes", _switch, False, "log every change, with what it added, updated and deleted"),
    Setting("resolver", _code, None, "a function that gives identifiers in the log of changes their names"),
    Setting("log-format", OneOf(("text", "json")), "text", "how it is logged"),
)

_METAVARS: Final = {"db": "FILE", "host": "ADDRESS", "unix": "PATH", "tls-cert": "FILE", "tls-key": "FILE"} | {
    "schema": "MODULE:TYPE",
    "migrations": "MODULE",
    "format": "{json,msgpack,MODULE:CLASS}",
    "resolver": "MODULE:FUNCTION",
}

COMMANDS: Final = {
    "check": "verify every record of a file",
    "compact": "drop history from a file, and keep what was dropped as another one",
    "convert": "write a file anew in the other format",
    "dump": "print the state, now or at a revision or time, as JSON",
    "log": "print the history, change by change; --follow goes on with it",
    "migrate": "bring a file to the code's version and type; --dry-run shows what that changes",
    "repair": "cut a damaged file at the damage, or --adopt what stands behind it",
}


@dataclass(frozen=True)
class Config:
    """The settings, by name; `config.get("max-body")`. `unknown` are variables that look like settings and are none."""

    values: Mapping[str, Any]
    unknown: tuple[str, ...] = ()

    def get(self, name: str) -> Any:
        """The value of a setting."""
        return self.values[name]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        words = message.removeprefix("unrecognized arguments: ")
        raise UsageError(message if words == message or words.startswith("-") else unknown(words))


def unknown(word: str) -> str:
    """What to say to a word that is neither a flag nor a command."""
    if word.endswith(".kantadb") or "/" in word or os.path.exists(word):
        return f"{word}: the file to serve is given with --db: kantad --db {quote(word)}"
    return f"there is no command {word}: the commands are {', '.join(COMMANDS)}, and without one it serves"


def parser() -> argparse.ArgumentParser:
    """The parser of the serving command's flags."""
    made = _Parser(
        prog="kantad",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="kantad [--db FILE] [--port N] [flags]\n       kantad COMMAND FILE [flags]",
        description="Serve a kantadb file over HTTP. Or, offline, on a file:\n\n"
        + "".join(f"  kantad {name:<7} {what}\n" for name, what in COMMANDS.items())
        + "\n`kantad COMMAND --help` tells the flags of these.",
        epilog="Every flag is also KANTAD_<FLAG> in the environment and a key of the TOML file of --config.",
    )
    for setting in SETTINGS:
        if setting.read is _switch:
            made.add_argument(f"--{setting.name}", action="store_const", const="true", help=setting.help)
        elif setting.many:
            made.add_argument(f"--{setting.name}", action="append", metavar="VALUE", help=setting.help)
        else:
            help = f"{setting.help}{_shown(setting)}"
            made.add_argument(f"--{setting.name}", metavar=_metavar(setting), help=help)
    made.add_argument("--config", metavar="FILE", help="a TOML file with settings")
    made.add_argument("--version", action="version", version=f"kantad {__version__}", help="tell the version, and end")
    return made


def _metavar(setting: Setting) -> str:
    if isinstance(setting.read, OneOf):
        return f"{{{','.join(setting.read.choices)}}}"
    if setting.read in (_size, _seconds):
        return "SIZE" if setting.read is _size else "SECONDS"
    return _METAVARS.get(setting.name, "N")


def _shown(setting: Setting) -> str:
    """The default, as one would write it."""
    if setting.default is None:
        return ""
    if setting.read is not _size:
        return f" (default: {setting.default:g})" if setting.read is _seconds else f" (default: {setting.default})"
    number, units = setting.default, iter(("", "KiB", "MiB", "GiB"))
    unit = next(units)
    while number % 1024 == 0:
        number, unit = number // 1024, next(units)
    return f" (default: {number}{unit})"


def load(arguments: list[str], environment: Mapping[str, str]) -> Config:
    """The configuration; raises `UsageError`."""
    flags = vars(parser().parse_args(arguments))
    path = flags.get("config") or environment.get("KANTAD_CONFIG")
    file = _read_file(path) if path else {}
    values, ranks = {}, {}
    for setting in SETTINGS:
        variable = _variable(setting.name)
        sources = (
            (f"--{setting.name}", flags.get(setting.name.replace("-", "_"))),
            (variable, environment.get(variable)),
            (f"{path}: {setting.name}", file.get(setting.name)),
        )
        values[setting.name] = _value(setting, sources)
        ranks[setting.name] = next((rank for rank, (_, given) in enumerate(sources) if given is not None), len(sources))
    _check(values)
    _check_addresses(values, ranks)
    return Config(values, _unknown_variables(environment))


def _variable(name: str) -> str:
    return f"KANTAD_{name.upper().replace('-', '_')}"


def _unknown_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    known = {_variable(name) for name in ("config", *(setting.name for setting in SETTINGS))}
    names = (name for name in environment if name.startswith("KANTAD_") and not name.startswith("KANTAD_TEST_"))
    return tuple(sorted(name for name in names if name not in known))


def _read_file(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    settings: dict[str, Any] = {}
    for key, value in found.items():
        name = key.replace("_", "-")
        if name not in {setting.name for setting in SETTINGS}:
            raise UsageError(f"{path}: there is no setting {name}")
        if name in settings:
            raise UsageError(f"{path}: {name} is given twice")
        settings[name] = value
    return settings


def _value(setting: Setting, sources: tuple[tuple[str, Any], ...]) -> Any:
    for place, given in sources:
        if given is None:
            continue
        if setting.many:
            texts = given if isinstance(given, list) else str(given).split(",")
            return tuple(_read(setting, place, text) for text in texts if text != "")
        return _read(setting, place, given)
    return setting.default


def _read(setting: Setting, place: str, given: Any) -> Any:
    try:
        if not isinstance(given, str | int | float):
            raise ValueError("a single value")
        return setting.read(str(given).lower() if isinstance(given, bool) else str(given))
    except ValueError as error:
        raise UsageError(f"{place}: {given!r} is not {error}") from None


def _check(values: dict[str, Any]) -> None:
    """Refuse combinations that would be unsafe or senseless."""
    if bool(values["tls-cert"]) != bool(values["tls-key"]):
        raise UsageError("--tls-cert and --tls-key go together")
    if values["retain"] is not None and values["readonly"]:
        raise UsageError("--readonly and --retain exclude each other: nothing is dropped from what is only read")
    host = values["host"]
    if not _is_loopback(host) and not values["unix"] and not values["insecure"]:
        raise UsageError(
            f"--host {host}: an address other than loopback needs --insecure: anyone who reaches it could write"
        )


def _check_addresses(values: dict[str, Any], ranks: dict[str, int]) -> None:
    """Refuse an address that a Unix socket, given no less directly, would make senseless."""
    for name in ("host", "port") if values["unix"] else ():
        if ranks[name] <= ranks["unix"]:
            raise UsageError(f"--unix and --{name} exclude each other: it listens on a socket, or on an address")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def environment() -> Mapping[str, str]:
    """The process's environment."""
    return os.environ
