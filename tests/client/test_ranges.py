"""The vocabulary of integer ranges: what may be said, what it means, and what is refused in which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dianaq.schemas.ranges import LARGEST_MAGNITUDE, QRange


@pytest.mark.parametrize(
    ("written", "lo", "hi", "levels"),
    [
        ({"bitwidth": 8, "signed": True}, -128, 127, 256),
        ({"bitwidth": 8, "signed": False}, 0, 255, 256),
        ({"bitwidth": 1, "signed": False}, 0, 1, 2),
        ({"bitwidth": 1, "signed": True}, -1, 0, 2),
        ({"limpbitwidth": 8, "signed": True}, -127, 127, 255),
        ({"limpbitwidth": 2, "signed": True}, -1, 1, 3),
        ({"limpbitwidth": 7, "signed": False}, 0, 126, 127),
        ({"n_levels": 5, "signed": True}, -2, 2, 5),
        ({"n_levels": 6, "signed": True}, -3, 2, 6),
        ({"n_levels": 256, "offset": -255}, -255, 0, 256),
        ({"bitwidth": 4, "offset": -3}, -3, 12, 16),
        ("ternary", -1, 1, 3),
        ([-1, 0, 1], -1, 1, 3),
        ((3, 4), 3, 4, 2),
        (list(range(-4, 4)), -4, 3, 8),
    ],
)
def test_runs_of_integers(written: object, lo: int, hi: int, levels: int) -> None:
    qrange = QRange.model_validate(written)
    assert (qrange.lo, qrange.hi, qrange.levels) == (lo, hi, levels)
    assert qrange.integers == tuple(range(lo, hi + 1))
    assert not qrange.is_free
    assert str(qrange) == f"[{lo}, {hi}]"


@pytest.mark.parametrize("written", ["binary", [-1, 1], (-1, 1), {"n_levels": 2, "offset": -1, "step": 2}])
def test_the_signs(written: object) -> None:
    qrange = QRange.model_validate(written)
    assert qrange.integers == (-1, 1)
    assert (qrange.lo, qrange.hi, qrange.levels, qrange.step) == (-1, 1, 2, 2)


@pytest.mark.parametrize("written", [{"bitwidth": 3}, {"limpbitwidth": 3}, {"n_levels": 9}])
def test_without_offset_or_sign_the_offset_is_free(written: dict[str, int]) -> None:
    qrange = QRange.model_validate(written)
    assert qrange.is_free
    assert str(qrange) == f"{qrange.levels} levels"
    for end in ("lo", "hi", "integers"):
        with pytest.raises(ValueError, match="the range's offset is free"):
            getattr(qrange, end)
    assert qrange.starting_at(-2).integers == tuple(range(-2, -2 + qrange.levels))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({}, "takes exactly one of bitwidth, limpbitwidth, n_levels; got none"),
        ({"signed": True}, "takes exactly one of bitwidth, limpbitwidth, n_levels; got none"),
        ({"bitwidth": 8, "n_levels": 256}, r"exactly one of .*; got \['bitwidth', 'n_levels'\]"),
        (
            {"bitwidth": 8, "signed": True, "offset": -128},
            "at most one of offset and signed; got offset -128 and signed",
        ),
        ({"n_levels": 3, "offset": -1, "step": 2}, 'step 2 is only for the signs {-1, 1}: write the range as "binary"'),
        ({"n_levels": 2, "step": 2}, "step 2 is only for the signs"),
        ({"n_levels": 16, "offset": 241}, r"the range \[241, 256\] leaves \[-255, 255\]"),
        ({"n_levels": 16, "offset": -256}, r"the range \[-256, -241\] leaves"),
        ({"bitwidth": 0}, "greater than or equal to 1"),
        ({"bitwidth": 9}, "less than or equal to 8"),
        ({"limpbitwidth": 1}, "greater than or equal to 2"),
        ({"n_levels": 1}, "greater than or equal to 2"),
        ({"n_levels": 257}, "less than or equal to 256"),
        ({"n_levels": 4, "step": 3}, "Input should be 1 or 2"),
        ({"bits": 8}, "bits\n  Extra inputs are not permitted"),
        ("quaternary", "a range's name is 'binary' or 'ternary', not 'quaternary'"),
        ([0, 2], r"consecutive and ascending, or \[-1, 1\]; got \[0, 2\]"),
        ([1, 0, -1], "consecutive and ascending"),
        ([0], r"consecutive and ascending, or \[-1, 1\]; got \[0\]"),
        ([], "consecutive and ascending"),
        ([0.0, 1.0], "consecutive and ascending"),
        ([False, True], "consecutive and ascending"),
        ([0, "1"], "consecutive and ascending"),
    ],
)
def test_refusals(written: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        QRange.model_validate(written)


SIZES = st.one_of(
    st.integers(1, 8).map(lambda b: {"bitwidth": b}),
    st.integers(2, 8).map(lambda b: {"limpbitwidth": b}),
    st.integers(2, 256).map(lambda n: {"n_levels": n}),
)
PLACES = st.one_of(
    st.just({}), st.booleans().map(lambda s: {"signed": s}), st.integers(-255, 254).map(lambda o: {"offset": o})
)


@given(SIZES, PLACES)
def test_a_range_survives_json_and_keeps_its_meaning(size: dict[str, int], place: dict[str, int]) -> None:
    try:
        qrange = QRange.model_validate({**size, **place})
    except ValidationError:
        assert place["offset"] + 1 > LARGEST_MAGNITUDE - 255 or place["offset"] < -LARGEST_MAGNITUDE
        return
    back = QRange.model_validate_json(qrange.model_dump_json())
    assert back == qrange
    assert back.model_dump(exclude_none=True) == qrange.model_dump(exclude_none=True)
    if not qrange.is_free:
        assert len(qrange.integers) == qrange.levels
        assert QRange.model_validate(list(qrange.integers)) == qrange or qrange.integers == (-1, 1)


def test_the_signs_survive_json() -> None:
    binary = QRange.model_validate("binary")
    assert QRange.model_validate_json(binary.model_dump_json()) == binary


def test_ranges_of_the_same_integers_are_equal_however_they_are_written() -> None:
    same = [{"bitwidth": 8, "signed": True}, {"n_levels": 256, "offset": -128}, {"bitwidth": 8, "offset": -128}]
    assert len({QRange.model_validate(written) for written in same}) == 1
    different = [*same[:1], {"bitwidth": 8}, {"bitwidth": 8, "signed": False}, "binary", [-1, 0], "ternary"]
    assert len({QRange.model_validate(written) for written in different}) == len(different)
    assert QRange(bitwidth=8) != "8 bits"
