"""The entity tag of a value: equal content has an equal tag, in every process, format and version.

By itself, so that the client, which only reads tags, needs no hash. Pure; called by views and preconditions.
"""

from typing import Any

import msgspec
from blake3 import blake3

from kantad.values.content import decode_json, encode_json

_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def etag(value: Any) -> str:
    """The entity tag (RFC 9110 section 8.8.3, without quotes) of a value: 128 bits of BLAKE3 of its sorted JSON.

    Equal content has an equal tag, in every process and format.
    """
    try:
        text = _encode_sorted(value)
    except TypeError:  # foreign MessagePack keys: sort what they show as
        text = _encode_sorted(decode_json(encode_json(value)))
    return blake3(text).hexdigest(length=16)
