"""The command `agent-rate-limiter`; needs the extra `cli` (click, rich)."""

from __future__ import annotations

import sys

_EXTRAS = {"click": "cli", "rich": "cli", "aiohttp": "demo", "matplotlib": "notebook", "openai": "demo"}
"""What a command imports → the extra that installs it; `demo` includes `cli` and `testing`."""


def main() -> None:
    """Run the command line; without an extra that a command needs, one line says how to install it."""
    try:
        from agent_rate_limiter.cli.commands import cli

        cli(prog_name="agent-rate-limiter")
    except ImportError as error:
        advice = _advice(error)
        if advice is None:
            raise
        sys.exit(advice)


def _advice(error: ImportError) -> str | None:
    """Say what to install, if the import that failed is that of an extra."""
    cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    package = (cause.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if not isinstance(cause, ModuleNotFoundError) or extra is None:
        return None
    return f"agent-rate-limiter needs {package} for this: pip install 'agent-rate-limiter[{extra}]'"
