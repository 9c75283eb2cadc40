"""Edits against a type: what is accepted decodes through it and is normal, what is refused changes nothing."""

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kantad.values.content import MISSING, encode_json, same
from kantad.values.diff import SAME
from kantad.values.effect import changed, effect
from kantad.values.errors import Problem
from kantad.values.patch import apply
from kantad.values.schema import Schema
from tests.values.typed_edits import INFO, Data, Maker, naive


def sweep(seed: int, edits: int, native: bool = False) -> tuple[int, int]:
    """Random edits, each against the naive way; how many were accepted and refused."""
    maker, schema = Maker(seed), Schema(Data)
    schema.bind(native)
    root, _ = schema.normalised({})
    accepted = refused = 0
    for _ in range(edits):
        asked = maker.patch(INFO, root)
        try:
            patch = effect(root, asked, 128, native)
        except Problem:
            continue
        if patch is SAME:
            continue
        expected = naive(Data, changed(root, patch), native)
        before = encode_json(root)
        try:
            fitted = schema.fitted(root, patch)
        except Problem as problem:
            assert problem.code == "validation_failed"
            assert expected is MISSING, (asked, problem.body())
            refused += 1
            assert encode_json(root) == before
            continue
        assert expected is not MISSING, asked
        assert encode_json(root) == before
        if fitted is not SAME:
            root = apply(root, deepcopy(fitted))
        assert same(root, expected), (asked, patch, fitted)
        accepted += 1
        if len(before) > 4000:
            assert schema.normalised(root)[1] is SAME
            root, _ = schema.normalised({})
    return accepted, refused


@given(st.integers(0, 2**32), st.booleans())
def test_what_is_accepted_is_what_the_whole_converts_to(seed: int, native: bool) -> None:
    sweep(seed, 30, native)


@pytest.mark.parametrize("native", [False, True])
def test_many_random_edits_are_accepted_and_refused_as_the_whole_is(native: bool) -> None:
    accepted, refused = sweep(1, 10_000, native)
    assert accepted > 5_000
    assert refused > 1_000


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_a_million_random_edits_are_accepted_and_refused_as_the_whole_is(seed: int) -> None:
    sweep(100 + seed, 100_000, seed % 2 == 1)
