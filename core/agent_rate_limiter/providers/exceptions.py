"""What an exception of an SDK or an HTTP library means.

They are known by their attributes and their classes' names: no library is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from agent_rate_limiter.errors import RateLimiterError
from agent_rate_limiter.plain import is_whole
from agent_rate_limiter.providers.kinds import detect, dialect, known_kind
from agent_rate_limiter.providers.model import Failure, FailureKind
from agent_rate_limiter.providers.shapes import get, is_mapping, mapping, words
from agent_rate_limiter.redaction import harmless

if TYPE_CHECKING:
    from agent_rate_limiter.providers.base import Dialect

_DEPTH = 8  # of causes
_REFUSALS = {
    FailureKind.WAIT,
    FailureKind.PARKED,
    FailureKind.NO_CREDIT,
    FailureKind.OVERLOADED,
    FailureKind.TOO_LARGE,
}

# The libraries whose exceptions speak for a provider, by the first part of their module's name.
_SDKS: Mapping[str, str] = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "gemini",
    "groq": "groq",
    "mistralai": "mistral",
    "cohere": "cohere",
    "botocore": "bedrock",
    "together": "together",
    "litellm": "generic",
}
_HTTP = words("httpx httpx2 httpcore httpcore2 aiohttp requests urllib urllib3 http")
_PLATFORM = words("builtins asyncio concurrent socket _socket ssl")

# Exceptions without a response: the request had not been sent, or may have been.
_NOT_SENT = words(
    "ConnectError ConnectTimeout PoolTimeout ProxyError ConnectionRefusedError ClientConnectorError "
    "ClientProxyConnectionError ConnectionTimeoutError NewConnectionError NameResolutionError ConnectTimeoutError "
    "EndpointConnectionError ProxyConnectionError gaierror SSLCertVerificationError"
)
_MAYBE_SENT = words(
    "TransportError ClientConnectionError ClientPayloadError ChunkedEncodingError ConnectionError Timeout "
    "TimeoutError HTTPClientError HTTPException ProtocolError ReadTimeoutError URLError APIConnectionError "
    "APITimeoutError NoResponseError SSLError ResponseStreamingError IncompleteReadError"
)
# Also transport errors by their class, but the caller's mistake.
_CALLERS = words("UnsupportedProtocol LocalProtocolError InvalidURL")
_HOPELESS = words("SSLCertVerificationError")
# What asyncio says when a client keeps a connection of another `asyncio.run` (Python 3.10 to 3.14).
_OTHER_LOOP = ("bound to a different event loop", "attached to a different loop", "Event loop is closed")


class _Response(NamedTuple):
    """What an exception says about the response that caused it."""

    status: int | None
    headers: object
    body: object


_CUT_OFF = {"APIConnectionError", "APITimeoutError", "Timeout", "TransferEncodingError", "ContentLengthError"}
"""Errors of connections, whatever status they carry: aiohttp gives a body that breaks off a 400."""


def failure_of(speaker: Dialect, error: BaseException, now: float) -> Failure | None:
    """What an exception means; None when no provider caused it.

    Args:
        speaker: the provider's dialect.
        error: any exception; its causes are looked at too.
        now: epoch seconds.
    """
    links = list(_chain(error))
    if any(isinstance(link, RateLimiterError) for link in links):
        return None  # ours, raised inside an SDK's transport and wrapped by it
    lost = _connection_failure(links)
    if lost is not None and not lost.sent:
        return lost  # whatever status LiteLLM gives it
    for link in links:
        response = None if _lost(link) else _response(link)
        if response is not None:
            named = known_kind(get(link, "llm_provider"))  # LiteLLM says whose error it passes on
            return (dialect(named) if named else speaker).failure(*response, now)
    return lost


def read_failure(error: BaseException, kind: str | None, now: float, *, likely: str = "generic") -> Failure | None:
    """What an exception means, whoever raised it; None when no provider caused it.

    Args:
        error: any exception.
        kind: the kind of provider; None tells it from the exception.
        now: epoch seconds.
        likely: the kind of provider where the exception does not tell.
    """
    return failure_of(dialect(kind or _kind_of(error) or likely), error, now)


def read_refusal(result: object, now: float, *, likely: str = "generic") -> Failure | None:
    """What a result says that failed without raising anything; None when it says no such thing.

    That is the response of an HTTP library with an error's status, whose body may have been read or not, or a
    provider's error as parsed JSON, if it says that a limit, the credit or the capacity is gone.

    Args:
        result: whatever a call returned.
        now: epoch seconds.
        likely: the kind of provider where the response does not tell.
    """
    if is_mapping(result):
        failure = dialect(likely).failure(None, None, result, now) if is_mapping(result.get("error")) else None
        return failure if failure is not None and failure.kind in _REFUSALS else None
    status = _status_code(get(result, "status_code") or get(result, "status")) if _root(type(result)) in _HTTP else None
    if status is None or status < 400:  # noqa: PLR2004 - where HTTP's errors begin
        return None
    body = get(result, "_content") or get(result, "_body")
    spoken = dialect(_kind_of_url(result) or likely)
    return spoken.failure(status, get(result, "headers"), body if isinstance(body, bytes) else None, now)


def _kind_of(error: BaseException) -> str | None:
    """The kind of provider that an exception speaks for: by the URL that was called, else by whose SDK it is."""
    for link in _chain(error):
        kind = _kind_of_url(link) or _kind_of_url(get(link, "response"))
        if kind is None:
            kind = _SDKS.get(_root(type(link)))
        if kind is not None:
            return kind
    return None


def _kind_of_url(thing: object) -> str | None:
    """The kind of provider that an exception or a response came from, by the URL that was called."""
    return detect(str(get(get(thing, "request"), "url") or ""))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it was raised from; libraries also raise without `from`, users' bugs do not count."""
    link: BaseException | None = error
    for _ in range(_DEPTH):
        if link is None:
            return
        yield link
        context = link.__context__ if _is_library(type(link)) and not link.__suppress_context__ else None
        link = link.__cause__ or context


def _root(kind: type) -> str:
    module = str(getattr(kind, "__module__", ""))
    return "" if module.startswith("aiohttp.web") else module.partition(".")[0]  # a server's own answers


def _is_library(kind: type) -> bool:
    return _root(kind) in _SDKS or _root(kind) in _HTTP


def _names(error: BaseException) -> list[str]:
    """Names of an exception's classes that belong to a library or to Python."""
    return [kind.__name__ for kind in type(error).__mro__ if _is_library(kind) or _root(kind) in _PLATFORM]


def _lost(error: BaseException) -> bool:
    """Whether there was no response; LiteLLM gives such errors a status all the same."""
    return any(name in _CUT_OFF for name in _names(error))


def _connection_failure(links: list[BaseException]) -> Failure | None:
    named = [(link, name) for link in links for name in _names(link)]
    if any(name in _CALLERS for _, name in named):
        return None
    lost = next((link for link, name in named if name in _NOT_SENT or name in _MAYBE_SENT), None)
    if lost is None:
        return None
    names = {name for _, name in named}
    return Failure(
        FailureKind.FATAL if names & _HOPELESS else FailureKind.TRANSIENT,
        sent=not names & _NOT_SENT,
        code=type(lost).__name__,
        message=harmless(str(lost)),
        stale=any(isinstance(link, RuntimeError) and _of_another_loop(str(link)) for link in links),
    )


def _of_another_loop(message: str) -> bool:
    return any(phrase in message for phrase in _OTHER_LOOP)


def _response(error: BaseException) -> _Response | None:
    response = get(error, "response")
    if is_mapping(response):
        return _botocore(response)
    ours = any(_is_library(kind) for kind in type(error).__mro__)
    status = _status(error, response) if ours else _status_code(get(response, "status_code"))
    body = _body(error, response)
    if status is None and (not ours or get(error, "body") is None):
        return None
    headers = get(error, "litellm_response_headers") or get(response, "headers") or get(error, "headers")
    return _Response(status, headers, body)


def _botocore(response: Mapping[str, Any]) -> _Response | None:
    """Read a ClientError: botocore parses the response and keeps the parts."""
    error, metadata = mapping(response.get("Error")), mapping(response.get("ResponseMetadata"))
    if not error:
        return None
    body = {"code": error.get("Code"), "message": error.get("Message")}
    return _Response(_status_code(metadata.get("HTTPStatusCode")), metadata.get("HTTPHeaders"), body)


def _status(error: BaseException, response: object) -> int | None:
    """The status: `code` at Google and urllib, `status` at aiohttp, `status_code` elsewhere."""
    told = (get(error, "status_code"), get(error, "code"), get(error, "status"), get(response, "status_code"))
    return next((status for value in told if (status := _status_code(value)) is not None), None)


def _status_code(value: object) -> int | None:
    if is_whole(value) and 100 <= value < 600:  # noqa: PLR2004 - HTTP's range
        return int(value)
    return None


def _body(error: BaseException, response: object) -> object:
    """The error's body: parsed by the SDK, or as read, or at least its sentence."""
    for body in (get(error, "body"), get(error, "details"), get(response, "_content")):
        if body and isinstance(body, (Mapping, list, str, bytes)):
            return cast("object", body)
    return str(get(error, "message") or error)
