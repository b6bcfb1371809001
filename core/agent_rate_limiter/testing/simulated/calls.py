"""What a request asks for and what it is answered, whatever API it came through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from agent_rate_limiter.testing.simulated.options import Answers, Count, Dimension, Seconds, ToolCall
from agent_rate_limiter.testing.simulated.tokens import Dice, compact, count_tokens, example, write

EVENTS = 32  # a stream has about this many pieces of text, however long it is


@dataclass(frozen=True)
class Call:
    """A request, understood.

    Args:
        api: `chat`, `responses`, `embeddings`, `messages` or `generate`.
        input_tokens: counted by the rule of four characters.
        max_output_tokens: the most that it may answer; None if it names none.
        choices: how many answers it asks for.
        schema: the JSON schema that the answer must follow.
        body: the request's JSON.
    """

    api: str
    model: str
    input_tokens: int
    max_output_tokens: int | None = None
    stream: bool = False
    choices: int = 1
    schema: Mapping[str, Any] | None = None
    body: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)


@dataclass(frozen=True)
class Tokens:
    """What a call used: `input` includes `cached` and `cache_write`, `output` includes `reasoning`."""

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        """Input and output."""
        return self.input + self.output


@dataclass(frozen=True)
class Answer:
    """What the model says to a call.

    Args:
        key: hexadecimal; ids are made of it.
        text: the visible text of one choice.
        truncated: it ended because of the call's own maximum.
        latency: seconds until the first byte.
        tokens_per_second: how fast it is generated; None is at once.
        tools: the calls to tools that it makes instead of saying something.
    """

    key: str
    text: str
    tokens: Tokens
    truncated: bool
    latency: float
    tokens_per_second: float | None
    tools: tuple[ToolCall, ...] = ()

    def pieces(self) -> Iterator[str]:
        """The text as a stream would bring it."""
        return pieces(self.text)

    def numbered(self) -> Iterator[tuple[str, ToolCall]]:
        """The calls to tools, each with the end of its id."""
        return ((f"{self.key[:18]}{number:06x}", tool) for number, tool in enumerate(self.tools))


def pieces(text: str) -> Iterator[str]:
    """A text as a stream would bring it."""
    size = max(4, -(-count_tokens(text) // EVENTS)) * 4
    return (text[at : at + size] for at in range(0, len(text), size))


class Event(NamedTuple):
    """A piece of a streamed answer, and the output tokens generated for it."""

    data: bytes
    tokens: int = 0


@dataclass(frozen=True)
class Reply:
    """A whole HTTP answer: JSON, or text as it is."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Refusal:
    """Why a call was not admitted.

    Args:
        wait: seconds of simulated time until it would fit; None when nobody can know.
        too_large: it can never fit.
        step: how much the limit will grow at the next boundary, if it is one on growth.
    """

    dimension: Dimension
    limit: int
    used: int
    requested: int
    wait: float | None
    too_large: bool = False
    step: int = 0


class Reading(NamedTuple):
    """What a limit's headers say: its amount, what remains, simulated seconds until it is full."""

    limit: int
    remaining: int
    reset: float


class BadRequest(Exception):
    """The request's body lacks something, or holds nonsense."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class Api(Protocol):
    """The shapes of one API: requests, answers, streams."""

    name: str

    def call(self, body: Mapping[str, Any], model: str | None, *, stream: bool) -> Call:
        """Understand a request; model and stream where the path tells them."""
        ...

    def body(self, call: Call, answer: Answer, at: int) -> dict[str, Any]:
        """The JSON of a whole answer; `at` is the time in epoch seconds."""
        ...

    def events(self, call: Call, answer: Answer, at: int) -> Iterator[Event]:
        """The server-sent events of a streamed answer."""
        ...

    def failure(self, call: Call, answer: Answer, error: Mapping[str, Any]) -> Iterator[Event]:
        """The events that end a stream in this error (`type`, `code`, `message`)."""
        ...


def answer_to(call: Call, answers: Answers, dice: Dice) -> Answer:
    """What the model says to this call: decided by its content and the seed alone, never by timing."""
    text, tools = _scripted(call, answers, dice)
    wanted = _length(text, tools) if text is not None else _draw(answers.output_tokens, call, dice, "output")
    reasoning = 0 if call.api == "embeddings" else _draw(answers.reasoning_tokens, call, dice, "reasoning")
    if text is not None:
        wanted += reasoning
    most = wanted if call.max_output_tokens is None else call.max_output_tokens
    if tools and wanted > most:  # cut off before it is one
        text, tools = None, ()
    output = 0 if call.api == "embeddings" else min(wanted, most)
    visible = output - min(reasoning, output)
    said = write(visible, dice) if text is None else text[: visible * 4]
    cached = min(_draw(answers.cached_tokens, call, dice, "cached"), call.input_tokens)
    written = min(_draw(answers.cache_write_tokens, call, dice, "written"), call.input_tokens - cached)
    return Answer(
        key=dice.bytes("id", 12).hex(),
        text=said,
        tokens=Tokens(call.input_tokens, output * call.choices, cached, written, (output - visible) * call.choices),
        truncated=wanted > most,
        latency=draw_seconds(answers.latency, call, dice),
        tokens_per_second=answers.tokens_per_second,
        tools=tools,
    )


def _scripted(call: Call, answers: Answers, dice: Dice) -> tuple[str | None, tuple[ToolCall, ...]]:
    """The text that is decided already, and calls to tools."""
    said = None if answers.reply is None else answers.reply(call)
    if said is None:
        return (compact(example(call.schema, dice)) if call.schema is not None else None), ()
    if isinstance(said, str):
        return said, ()
    return "", (said,) if isinstance(said, ToolCall) else tuple(said)


def _length(text: str, tools: tuple[ToolCall, ...]) -> int:
    return count_tokens(text) + sum(tool.tokens for tool in tools)


def _draw(count: Count, call: Call, dice: Dice, label: str) -> int:
    if callable(count):
        return max(0, count(call))
    return dice.integer(label, *count) if isinstance(count, tuple) else count


def draw_seconds(seconds: Seconds, call: Call, dice: Dice) -> float:
    """A time: fixed, drawn, or computed from the call."""
    if callable(seconds):
        return max(0.0, seconds(call))
    if isinstance(seconds, tuple):
        low, high = seconds
        return low + (high - low) * dice.fraction("seconds")
    return seconds
