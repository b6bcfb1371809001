"""How long an event loop is held, step by step and turn by turn, and how much of that is ours.

A step is what the loop runs without looking at anything else: from one wait of a task to the next. A turn is all the
steps that are ready when the loop looks: what else becomes ready meanwhile waits for its end. Both are told in CPU time
of the thread, so that other programs do not count.

What is ours is found by a profile hook, by whose file the code is in: what our code calls in Python and its libraries
is ours too, until it calls a framework or an SDK, and again when that returns. The hook's own time is in it, so that it
is an upper bound.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import agent_rate_limiter
import agent_rate_limiter_adapters
from tests.benchmarks.measure import clock

_OURS = tuple(str(Path(str(package.__file__)).parent) for package in (agent_rate_limiter, agent_rate_limiter_adapters))
_FRAMEWORKS = ("langchain", "langchain_core", "langchain_openai", "langgraph", "langsmith", "crewai", "crewai_core")
_MORE = ("llama_index", "llama_index_instrumentation", "workflows")
_SDKS = ("openai", "anthropic", "httpx", "httpcore", "h11", "anyio")
_THEIRS = frozenset((*_FRAMEWORKS, *_MORE, *_SDKS))


@dataclass
class Held:
    """What was seen of one run: seconds of CPU time.

    Args:
        steps: each step's.
        turns: each turn's.
        ours: each step's part that is ours, where that was asked for.
        ours_in_turns: each turn's.
    """

    steps: list[float] = field(default_factory=list[float])
    turns: list[float] = field(default_factory=list[float])
    ours: list[float] = field(default_factory=list[float])
    ours_in_turns: list[float] = field(default_factory=list[float])

    @property
    def total(self) -> float:
        """All that the loop's thread computed."""
        return sum(self.turns)


def held(run: Callable[[], Awaitable[object]], *, whose: bool) -> Held:
    """Run a coroutine on a loop of its own, and tell how it held it.

    Args:
        run: makes the coroutine.
        whose: find what is ours, which slows all of it down.
    """
    seen = Held()
    loop = _Watched(seen, _Owner() if whose else None)
    try:
        with _stepped(loop):
            loop.run_until_complete(_awaited(run))
            loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    return seen


async def _awaited(run: Callable[[], Awaitable[object]]) -> None:
    await run()


class _Watched(asyncio.SelectorEventLoop):
    """An event loop that notes its steps and turns."""

    def __init__(self, seen: Held, owner: _Owner | None) -> None:
        super().__init__()
        self.seen = seen
        self.owner = owner
        self._stepped = 0

    def _run_once(self) -> None:
        before = clock()
        super()._run_once()  # type: ignore[misc]  # asyncio's own
        self.seen.turns.append(clock() - before)
        self.seen.ours_in_turns.append(sum(self.seen.ours[self._stepped :]))
        self._stepped = len(self.seen.ours)

    def step(self, run: Callable[[], None]) -> None:
        """Run a step of this loop."""
        before = clock()
        if self.owner is None:
            run()
        else:
            self.seen.ours.append(self.owner.part(run))
        self.seen.steps.append(clock() - before)


@contextmanager
def _stepped(loop: _Watched) -> Iterator[None]:
    """Let the loop know of each step that it takes."""
    handle: Any = asyncio.Handle
    run = handle._run

    def watched(self: Any) -> None:
        if self._loop is loop:
            loop.step(lambda: run(self))
        else:
            run(self)

    handle._run = watched
    try:
        yield
    finally:
        handle._run = run


class _Owner:
    """Tells our part of a step from the rest."""

    def __init__(self) -> None:
        self._owners: dict[CodeType, bool | None] = {}
        self._callers: list[bool] = []
        self._ours = False
        self._since = 0.0
        self._spent = 0.0

    def part(self, run: Callable[[], None]) -> float:
        """Run something; return the seconds in it that are ours."""
        self._callers, self._ours, self._spent = [], False, 0.0
        sys.setprofile(self._note)
        try:
            run()
        finally:
            sys.setprofile(None)
        return self._spent

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            self._callers.append(self._ours)
            code = frame.f_code
            if code not in self._owners:
                self._owners[code] = _owner(code.co_filename)
            owner = self._owners[code]
            if owner is not None and owner is not self._ours:
                self._change(owner)
        elif event == "return" and self._callers:
            before = self._callers.pop()
            if before is not self._ours:
                self._change(before)

    def _change(self, ours: bool) -> None:
        now = clock()
        if self._ours:
            self._spent += now - self._since
        self._ours, self._since = ours, now


def _owner(file: str) -> bool | None:
    """Whether a file is ours; None: it does what its caller wants."""
    if file.startswith(_OURS):
        return True
    parts = Path(file).parts
    package = parts[parts.index("site-packages") + 1] if "site-packages" in parts else parts[-1]
    return False if package in _THEIRS else None
