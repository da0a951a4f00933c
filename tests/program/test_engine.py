# SPDX-License-Identifier: Apache-2.0
"""The native engine of a structure: which cones it takes."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayer import _native
from cvxlayer.cones.product import ConeKind, ConeProduct
from cvxlayer.errors import UnsupportedProblemError
from cvxlayer.program.engine import prepare_engine
from tests.catalog.cone_programs import random_batch


def test_a_cone_that_the_core_does_not_know_is_refused_by_name(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = random_batch(rng, n=4, cones=ConeProduct(0, 4, (3,)), batch=1)
    monkeypatch.setattr(_native, "cone_kinds", lambda: [int(ConeKind.POWER)])
    with pytest.raises(
        UnsupportedProblemError, match=r"second-order cone.*it knows the power cone"
    ):
        prepare_engine(batch.structure)


def test_the_core_refuses_a_kind_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="unknown kind of cone"):
        _native.Engine(1, 0, 0, [(77, 3, 0.0)], [0, 0], [], [0, 0], [], 30, True)


SIZES = (2, 0, 2, [])  # n, equalities, inequalities, curved cones
P, A = ([0, 1, 2], [0, 1]), ([0, 1, 2], [0, 1])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((*SIZES, *P, [0, 1, 2], [0, 2]), "A has rows out of range"),
        ((*SIZES, *P, [0, 1, 2], [-1, 0]), "A has rows out of range"),
        ((*SIZES, [0, 1, 2], [1, 1], *A), "P has rows out of range"),
        ((*SIZES, [0, 3, 2], [0, 1], *A), "P has starts that decrease"),
        ((*SIZES, [0, 1], [0], *A), r"P needs n \+ 1 starts"),
        ((*SIZES, *P, [0, 1, 1], [0, 1]), r"A needs n \+ 1 starts"),
        ((*SIZES, [], [], *A), r"P needs n \+ 1 starts"),
        ((2, 0, -2, [], *P, *A), "have to be positive"),
        ((-1, 0, 2, [], [0], [], [0], []), "n is negative"),
        ((2, 0, 0, [(int(ConeKind.SECOND_ORDER), 0, 0.0)], *P, *A), "have to be positive"),
    ],
)
def test_the_core_refuses_a_pattern_that_would_lead_out_of_its_arrays(
    arguments: tuple[object, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        _native.Engine(*arguments, 30, True)
