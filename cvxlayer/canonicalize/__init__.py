# SPDX-License-Identifier: Apache-2.0
"""Stage 1: a CVXPY problem comes in, a `ParametricConeProgram` and a `Recovery` go out."""
