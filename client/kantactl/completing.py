"""What could stand where the cursor is: commands, options, and keys of the database, asked for of the server.

A shell's script (`completion`) calls it as `kantactl --complete WORD…`: all words up to the cursor, the last
one as far as it is written. It prints what that could become, one a line, and says nothing of what goes wrong;
nor of keys that a terminal would act on.
It is called at a keypress, so it asks by plain HTTP and imports neither the client nor aiohttp.
"""

import argparse
import http.client
import json
import os
import socket
import ssl
import sys
import time
from contextlib import suppress
from itertools import pairwise
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from kantactl.arguments import URL, Parser, parser

SECONDS: Final = 1.0  # for all of it
PAGE: Final = 1_000


def complete(words: list[str]) -> int:
    """Print what the last word could become."""
    with suppress(Exception):
        found = candidates(words[:-1], words[-1] if words else "")
        sys.stdout.write("".join(f"{each}\n" for each in found if each.isprintable()))
    return 0


def candidates(before: list[str], word: str) -> list[str]:
    """What a word could become behind these."""
    top = parser()
    place = next((number for number, each in enumerate(before) if each in top.commands), None)
    known = top if place is None else top.commands[before[place]]
    takes = _takes(known, before[-1]) if before else None
    if takes is not None:
        return [each for each in takes if each.startswith(word)]
    if word.startswith("-"):
        return sorted(name for name in _options(known) if name.startswith(word))
    if place is None:
        return [name for name in top.commands if name.startswith(word)]
    positional = [each for each in known.arguments if not each.option_strings]
    positional = positional[len(_given(known, before[place + 1 :])) :]
    if not positional:
        return []
    if positional[0].dest == "path":
        return paths(word, *_server(before))
    return [each for each in positional[0].choices or () if each.startswith(word)]


def _options(of: Parser) -> dict[str, argparse.Action]:
    return {name: each for each in of.arguments for name in each.option_strings if name.startswith("--")}


def _takes(of: Parser, option: str) -> list[str] | None:
    """What an option that stands before the word takes; None where it takes nothing."""
    action = _options(of).get(option)
    return None if action is None or action.nargs == 0 else [str(each) for each in action.choices or ()]


def _given(of: Parser, words: list[str]) -> list[str]:
    """The positional arguments among these words."""
    found, value = [], False
    for word in words:
        if not value and not (word.startswith("-") and word != "-"):
            found.append(word)
        value = not value and _takes(of, word) is not None
    return found


# -- keys


def paths(word: str, url: str, token: str | None) -> list[str]:
    """The paths that a path could become: the keys of the object it stands in, as far as time allows."""
    above, slash, begun = word.rpartition("/")
    if not slash:
        above, begun = "", word
    if word and not slash:
        return []
    until = time.monotonic() + SECONDS
    found: list[str] = []
    after: str | None = None
    while (left := until - time.monotonic()) > 0:
        page = _page(above, after, url, token, left)
        keys = [str(key).replace("~", "~0").replace("/", "~1") for key in page.get("keys", ())]
        found += [f"{above}/{key}" for key in keys if key.startswith(begun)]
        after = page.get("next")
        if after is None:
            break
    return found


def _server(words: list[str]) -> tuple[str, str | None]:
    """The server's URL and the token, by the same rules as the commands have."""
    named = dict(pairwise(words))
    token = os.environ.get("KANTA_TOKEN") or None
    if "--token-file" in named:
        with open(named["--token-file"], encoding="utf-8") as file:
            token = file.read().strip()
    return named.get("--url") or os.environ.get("KANTA_URL") or URL, token


def _page(above: str, after: str | None, url: str, token: str | None, seconds: float) -> dict[str, Any]:
    segments = [each.replace("~1", "/").replace("~0", "~") for each in above.split("/")[1:]]
    query = {"limit": str(PAGE)} if after is None else {"limit": str(PAGE), "after": after}
    target = "/v1/keys" + "".join(f"/{quote(each, safe='')}" for each in segments)
    connection = _connection(url, seconds)
    try:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection.request("GET", f"{_prefix(url)}{target}?{urlencode(query)}", headers=headers)
        answer = json.load(connection.getresponse())
        return answer if isinstance(answer, dict) else {}
    finally:
        connection.close()


def _prefix(url: str) -> str:
    return "" if url.startswith("unix:") else urlsplit(url).path.rstrip("/")


def _connection(url: str, seconds: float) -> http.client.HTTPConnection:
    if url.startswith("unix:"):
        connection = http.client.HTTPConnection("localhost", timeout=seconds)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(seconds)
        connection.sock.connect("/" + url.removeprefix("unix:").lstrip("/"))
        return connection
    parts = urlsplit(url)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=seconds, context=context)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
