# SPDX-License-Identifier: Apache-2.0
"""What errors are, and what they say."""

from __future__ import annotations

import pickle

import pytest

from cvxlayer import errors
from cvxlayer.errors import CvxLayerError, CvxLayerWarning, SolverError, Status, suggest


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.NotDppError, ValueError),
        (errors.ShapeError, ValueError),
        (errors.ParameterValueError, ValueError),
        (errors.OptionError, ValueError),
        (errors.UnsupportedProblemError, ValueError),
        (errors.MissingDependencyError, ImportError),
        (errors.SolverError, RuntimeError),
    ],
)
def test_every_error_is_ours_and_also_the_builtin_a_caller_expects(
    error: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(error, CvxLayerError)
    assert issubclass(error, builtin)


def test_every_error_and_warning_has_our_root() -> None:
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            root = CvxLayerWarning if issubclass(value, Warning) else CvxLayerError
            assert issubclass(value, root), name


def test_a_solver_error_names_rows_statuses_and_remedies() -> None:
    error = SolverError([3, 7], [Status.INFEASIBLE, Status.MAX_ITERATIONS])
    message = str(error)
    assert "2 instance(s)" in message
    assert "3: INFEASIBLE, 7: MAX_ITERATIONS" in message
    assert "relax a constraint" in message
    assert "larger `max_iters`" in message
    assert "badly scaled" not in message
    assert 'on_failure="nan"' in message
    assert error.indices == [3, 7]
    assert error.statuses == [Status.INFEASIBLE, Status.MAX_ITERATIONS]


def test_a_solver_error_lists_twenty_rows_and_counts_the_rest() -> None:
    message = str(SolverError(range(50), [Status.UNBOUNDED] * 50))
    assert "19: UNBOUNDED" in message
    assert "20: UNBOUNDED" not in message
    assert "and 30 more" in message


def test_a_solver_error_survives_pickling() -> None:
    error = SolverError([(0, 1)], [Status.NUMERICAL_ERROR])
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, SolverError)
    assert (copy.indices, copy.statuses, str(copy)) == (error.indices, error.statuses, str(error))


def test_only_solved_and_inaccurate_rows_have_a_solution() -> None:
    assert [status.name for status in Status if status.has_solution] == ["SOLVED", "INACCURATE"]


def test_the_nearest_name_is_suggested_or_all_are_listed() -> None:
    assert suggest("max_iter", ["eps", "max_iters"]) == "Did you mean `max_iters`?"
    assert suggest("zzz", ["b", "a"]) == "Valid names: a, b."
