"""What happens to each request, as one generator for sync and async: it yields steps, and is sent their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from agent_rate_limiter_adapters.http import body as bodies
from agent_rate_limiter_adapters.http.elsewhere import Others
from agent_rate_limiter_adapters.http.meter import Meter
from agent_rate_limiter_adapters.http.targets import Destinations

if TYPE_CHECKING:
    from httpx2 import Request, Response

    from agent_rate_limiter import Attempts, Estimate, Reservation, Target
    from agent_rate_limiter.providers import Dialect
    from agent_rate_limiter_adapters.http.targets import AnyLimiter


@dataclass(frozen=True)
class Terms:
    """On which terms a client's calls are limited.

    Args:
        library: the HTTP library, httpx or httpx2.
        limiter: whose limits.
        destinations: which of them, by URL.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        include_usage: ask chat streams to state their usage, where the caller has not decided.
        others: where calls can go besides their own target.
        labels: asked at every call what it is labelled with, besides the scope's labels.
    """

    library: Any
    limiter: AnyLimiter
    destinations: Destinations
    priority: int | None = None
    timeout: float | None = None
    include_usage: bool = True
    others: Others = field(default_factory=Others)
    labels: Callable[[], Mapping[str, object]] | None = None

    def labelled(self) -> AbstractContextManager[None]:
        """Surround a call with its labels."""
        return nullcontext() if self.labels is None else self.limiter.scope(**dict(self.labels()))  # type: ignore[arg-type]


# ------------------------------------------------------------------ steps: what the drivers do


class Load(NamedTuple):
    """Read a request's body into memory, so that it can be parsed, and sent again."""

    request: Request


class Acquire(NamedTuple):
    """Wait until the next attempt is admitted; the result is its Reservation."""

    attempts: Attempts


class Send(NamedTuple):
    """Send a request; the result is the Response, its body unread."""

    request: Request


class Read(NamedTuple):
    """Read a response's body, and leave it readable; the result is the body, decoded."""

    response: Response


class Begin(NamedTuple):
    """Read the beginning of a stream: until it is known whether the call was refused inside a 200.

    If so, all of it is read, and left readable; the result is the refusal. If not, the result is None, and the
    meter reads along from now on.
    """

    response: Response
    meter: Meter


Step: TypeAlias = Load | Acquire | Send | Read | Begin


class Answer(NamedTuple):
    """A response, and who reads along with its body; nobody when the call has ended already."""

    response: Response
    meter: Meter | None = None


Flow: TypeAlias = Generator[Step, Any, Answer]


# ------------------------------------------------------------------ the flow


class Call(NamedTuple):
    """A model call, as it will be sent."""

    request: Request
    target: Target
    estimate: Estimate
    dialect: Dialect
    asks_usage: bool
    """Whether we asked for the stream's usage; then the caller does not see it."""


def limited(request: Request, terms: Terms) -> Flow:
    """Limit a request if it is a model call; pass it on untouched otherwise."""
    if not terms.destinations.counted(request.method, _path(request)):
        return Answer((yield Send(request)))
    yield Load(request)
    call = _call(request, terms)
    attempts = _attempts(call, terms)
    reservation = attempts.claim()
    while True:
        if reservation is None:
            with terms.labelled():
                reservation = yield Acquire(attempts)
        answer = yield from _attempt(_towards(call, reservation.target, terms), reservation, attempts, terms)
        if answer is not None:
            return answer
        reservation = None


def _attempts(call: Call, terms: Terms) -> Attempts:
    others = terms.others
    return terms.limiter.attempts(
        call.target,
        call.estimate,
        fallbacks=[target for target in others.targets if others.serve(call.request, call.target, target)],
        serves=lambda target: others.serve(call.request, call.target, target),
        priority=terms.priority,
        timeout=terms.timeout,
    )


def _towards(call: Call, target: Target, terms: Terms) -> Call:
    """The call as it is made at the target that was chosen."""
    if target == call.target:
        return call
    request = terms.others.redirect(call.request, target)
    spoken = call.dialect if target.provider == call.target.provider else terms.destinations.spoken(target.provider)
    return call._replace(request=request, target=target, dialect=spoken)


def _call(request: Request, terms: Terms) -> Call:
    """Understand a model call.

    Raises:
        ConfigError: it goes to a provider or a model that is not configured.
    """
    provider, dialect = terms.destinations.find(str(request.url))
    path, body = _path(request), bodies.asked(request)
    target = terms.limiter.target_for(provider, dialect.model(path, body) or "*")
    changed = dialect.with_usage(path, body) if terms.include_usage and not bodies.signed(request.headers) else None
    return Call(
        request if changed is None else bodies.with_body(request, changed),
        target,
        dialect.estimate(path, body),
        dialect,
        asks_usage=changed is not None,
    )


def _attempt(
    call: Call, reservation: Reservation, attempts: Attempts, terms: Terms
) -> Generator[Step, Any, Answer | None]:
    """Send, and settle: here after an error, else when the body has been read. None: try again."""
    try:
        response: Response = yield Send(call.request)
        reservation.observe(call.dialect.quotas(response.headers, time.time()))
        if response.status_code < 400:  # noqa: PLR2004 - where HTTP's errors begin
            if _is_document(response):  # read whole by everybody: what breaks off can still be tried again
                yield Read(response)
            answer = _served(call, reservation, response, terms)
            if answer.meter is None or not answer.meter.begins_with_events:
                return answer
            failure = yield Begin(response, answer.meter)
            if failure is None:
                return Answer(response)
        else:
            told: bytes = yield Read(response)
            failure = call.dialect.failure(response.status_code, response.headers, told, time.time())
    except BaseException as error:
        if attempts.failed(reservation, error):
            return None
        raise
    return None if attempts.failed(reservation, failure) else Answer(response)


def _is_document(response: Response) -> bool:
    return not response.is_closed and not response.has_redirect_location and _kind(response) == "application/json"


def _kind(response: Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _served(call: Call, reservation: Reservation, response: Response, terms: Terms) -> Answer:
    if response.has_redirect_location:  # where it leads, it is a call anew
        reservation.cancel()
        return Answer(response)
    meter = Meter(
        reservation,
        call.dialect,
        call.dialect.reader(response.headers, time.time()),
        call.estimate,
        kind=_kind(response),
        decode=None if response.is_closed else bodies.decoder(terms.library, response.headers),
        hide_usage=call.asks_usage,
    )
    if not response.is_closed:
        return Answer(response, meter)
    meter.feed(response.content)  # whoever sent it has read it already
    meter.end()
    return Answer(response)


def _path(request: Request) -> str:
    return request.url.raw_path.decode("ascii", "replace")
