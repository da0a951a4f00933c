# SPDX-License-Identifier: Apache-2.0
"""Implicit functions of JAX arrays."""
