# SPDX-License-Identifier: Apache-2.0
"""The nouns: immutable data handed from stage to stage."""
