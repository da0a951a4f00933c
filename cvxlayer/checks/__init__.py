# SPDX-License-Identifier: Apache-2.0
"""Is a problem fit to be a layer? Each check looks at one thing and returns a report of it."""

from cvxlayer.checks.check import check_problem
from cvxlayer.checks.loading import LoadedProblem, load_problem
from cvxlayer.checks.report import Report

__all__ = ["check_problem", "load_problem", "LoadedProblem", "Report"]
