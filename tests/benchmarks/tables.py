# SPDX-License-Identifier: Apache-2.0
"""Tables and numbers in Markdown."""

from __future__ import annotations


def table_text(header: list[str], rows: list[list[str]]) -> str:
    """Return a table."""
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def number_text(value: float) -> str:
    """Return a number with three digits or all before the point."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def error_text(value: float | None) -> str:
    """Return the order of an error."""
    return "–" if value is None else f"{value:.0e}"
