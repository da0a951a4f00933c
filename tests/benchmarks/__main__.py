# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.benchmarks` is what `make bench` runs."""

from tests.benchmarks.run import main

main()
