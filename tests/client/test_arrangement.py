"""Arrangements: what chains of permutations and reshapes do, compared with numpy doing them."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dianaq.inspection.arrangement import followed, inverse, keeps_order, permuted, reshaped, source_axis, unchanged
from dianaq.schemas.resources import Arrangement

Shape = tuple[int, ...]
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def done(made: Arrangement, x: np.ndarray) -> np.ndarray:
    return x.transpose(made.axes).reshape(made.shape)


def numbered(shape: Shape) -> np.ndarray:
    return np.arange(math.prod(shape)).reshape(shape)


@st.composite
def chains(draw: st.DrawFn) -> tuple[Shape, list[tuple[str, Shape]]]:
    """A shape, and steps: permutations, merges of two neighbours, dimensions of size 1 that come and go."""
    shape = source = draw(SHAPES)
    steps: list[tuple[str, Shape]] = []
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            order = tuple(draw(st.permutations(range(len(shape)))))
            steps.append(("permute", order))
            shape = tuple(shape[d] for d in order)
            continue
        place = draw(st.integers(0, len(shape) - 1))
        kind = draw(st.sampled_from(["merge", "unsqueeze", "squeeze"]))
        if kind == "merge" and place:
            shape = (*shape[: place - 1], shape[place - 1] * shape[place], *shape[place + 1 :])
        elif kind == "squeeze" and shape[place] == 1 and len(shape) > 1:
            shape = (*shape[:place], *shape[place + 1 :])
        else:
            shape = (*shape[:place], 1, *shape[place:])
        steps.append(("reshape", shape))
    return source, steps


def composed(source: Shape, steps: list[tuple[str, Shape]]) -> Arrangement | None:
    made: Arrangement | None = unchanged(source)
    for kind, value in steps:
        if made is not None:
            made = permuted(source, made, value) if kind == "permute" else reshaped(source, made, value)
    return made


@given(chains())
def test_a_chain_is_one_arrangement_or_none(chain: tuple[Shape, list[tuple[str, Shape]]]) -> None:
    source, steps = chain
    made, expected = composed(source, steps), numbered(source)
    for kind, value in steps:
        expected = expected.transpose(value) if kind == "permute" else expected.reshape(value)
    if made is None:
        assert any(kind == "reshape" for kind, _ in steps)
        return
    np.testing.assert_array_equal(done(made, numbered(source)), expected)
    assert keeps_order(source, made) == bool((expected.ravel() == np.arange(expected.size)).all())


@given(chains())
def test_equal_functions_are_written_alike(chain: tuple[Shape, list[tuple[str, Shape]]]) -> None:
    source, steps = chain
    made = composed(source, steps)
    if made is not None:
        again = followed(source, made, unchanged(made.shape))
        assert again == made
        if keeps_order(source, made) and made.shape == source:
            assert made == unchanged(source)


@given(chains())
def test_an_inverse_leads_back(chain: tuple[Shape, list[tuple[str, Shape]]]) -> None:
    source, steps = chain
    made = composed(source, steps)
    back = None if made is None else inverse(source, made)
    if made is not None and back is not None:
        np.testing.assert_array_equal(done(back, done(made, numbered(source))), numbered(source))
        assert followed(source, made, back) == unchanged(source)


def test_every_permutation_has_an_inverse() -> None:
    made = permuted((2, 3, 4), unchanged((2, 3, 4)), (2, 0, 1))
    assert made == Arrangement(axes=(2, 0, 1), shape=(4, 2, 3))
    assert inverse((2, 3, 4), made) == Arrangement(axes=(1, 2, 0), shape=(2, 3, 4))


def test_what_moves_a_part_of_a_dimension_is_no_arrangement() -> None:
    merged = reshaped((2, 3, 4), unchanged((2, 3, 4)), (6, 4))
    assert permuted((2, 3, 4), merged, (1, 0)) is None


def test_the_axis_that_a_dimension_comes_from() -> None:
    made = Arrangement(axes=(2, 0, 1), shape=(4, 1, 6))
    assert [source_axis((2, 3, 4), made, dim) for dim in range(3)] == [2, None, None]
