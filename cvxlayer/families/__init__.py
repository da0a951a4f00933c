# SPDX-License-Identifier: Apache-2.0
"""Problems that are one equation F(z, θ) = 0: what is solved, and how; never its derivative."""
