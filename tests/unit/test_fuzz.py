"""The decoder and the check of what workers say, under odd frames. The proof ``frames`` takes many more."""

from __future__ import annotations

import random

import pytest

from scripts.proofs import fuzz
from scripts.proofs.frames import undaunted


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_whatever_comes_in_what_comes_out_is_well_typed_or_refused(first: int) -> None:
    decoded, believed = undaunted(range(first, first + 50))
    assert decoded == 5000
    assert 0 < believed < decoded


def test_the_same_seed_makes_the_same_frames() -> None:
    for make in (fuzz.submit, fuzz.request, fuzz.from_worker, fuzz.on_control):
        first, second = (list(fuzz.stream(random.Random(7), make, 50)) for _ in range(2))
        assert first == second
        assert len(first) == 50
