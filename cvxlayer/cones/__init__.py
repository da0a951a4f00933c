# SPDX-License-Identifier: Apache-2.0
"""The cones: projection, its derivative and the dual, one file each (NumPy specification)."""
