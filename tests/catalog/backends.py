# SPDX-License-Identifier: Apache-2.0
"""The backends, once."""

from __future__ import annotations

import importlib.util

from cvxlayer.solve.registry import backend_names

BACKENDS = [name for name in backend_names() if importlib.util.find_spec(f"cvxlayer.solve.{name}")]
