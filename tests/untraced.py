"""Programs that load whole frameworks: coverage, which tests would hand on to them, doubles the time they take."""

from __future__ import annotations

import os


def untraced() -> dict[str, str]:
    """Return the environment of a process that coverage does not trace."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
