# SPDX-License-Identifier: Apache-2.0
"""Stage 3: ConeSolution → linear maps (jvp, vjp) by the implicit function theorem."""
