"""The contract as OpenAPI 3.1: the file `openapi.json` beside this module, read once."""

from functools import cache
from importlib.resources import files
from typing import Any

from kantad.values.content import decode_json


@cache
def document() -> Any:
    """The OpenAPI document."""
    return decode_json(files("kantad.web").joinpath("openapi.json").read_bytes())
