"""The command line, called in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from agent_rate_limiter.cli.commands import cli


@dataclass(frozen=True)
class Done:
    """What a command printed, and how it ended."""

    code: object
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        """What it printed, line by line, with single spaces."""
        return [" ".join(line.split()) for line in self.stdout.splitlines()]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: str) -> Done:
        with pytest.raises(SystemExit) as ended:
            cli(arguments, prog_name="agent-rate-limiter")
        printed = capsys.readouterr()
        return Done(ended.value.code or 0, printed.out, printed.err)

    return call
