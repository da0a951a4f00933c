# SPDX-License-Identifier: Apache-2.0
"""Stage 2: ConeProgramBatch → ConeSolution, by our native engine or an outside solver."""
