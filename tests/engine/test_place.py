"""Places: what stands around a patch in a record, made in parts, is what encoding the whole patch gives."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantad.engine.place import LONGEST, Places
from kantad.values.codec import Codec, JsonCodec, MsgpackCodec
from kantad.values.effect import rooted
from kantad.values.errors import Problem
from kantad.values.pointer import format, parse
from tests.values.documents import texts

CODECS: list[Codec] = [JsonCodec(), MsgpackCodec()]
paths = st.lists(texts | st.just("x" * LONGEST), max_size=4).map(tuple)


@pytest.mark.parametrize("codec", CODECS)
@given(asked=st.lists(paths, min_size=1, max_size=12))
def test_a_place_is_the_same_however_often_and_behind_whatever_it_is_asked_for(codec: Codec, asked: Any) -> None:
    places = Places(codec)
    for path in asked * 2:
        found, before, after = places.of(format(path))
        assert found == path
        steps: list[tuple[Any, Any]] = [({}, segment) for segment in path]
        assert before + codec.encode({"n": 1}) + after == codec.encode(rooted(steps, {"n": 1}))


@pytest.mark.parametrize("pointer", ["a", "a/b", "/~", "/a~2b", "/a/~", "~0/a", "/a" * 129])
def test_what_is_no_pointer_is_refused_whatever_was_asked_for_before(pointer: str) -> None:
    places = Places(JsonCodec())
    for known in ["", "/a", "/a/b", "/a~0/c", "/~1/~0", "/a" * 128]:
        assert places.of(known)[0] == parse(known)
        with pytest.raises(Problem) as refused:
            places.of(pointer)
        assert refused.value.code == "invalid_path"
