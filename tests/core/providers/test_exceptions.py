"""What exceptions mean: the real SDKs' and HTTP libraries', raised over a real socket."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import urllib.error
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp.web
import anthropic
import httpx
import httpx2
import openai
import pytest

from agent_rate_limiter.decision import Decision
from agent_rate_limiter.errors import AcquireTimeout, LimitExceeded
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers import Failure, FailureKind, dialect, read_failure
from tests.core.providers.libraries import (
    CALLERS,
    HI,
    SDKS,
    Server,
    call_with_aiohttp,
    call_with_anthropic,
    call_with_openai,
    call_with_urllib,
    running,
)
from tests.core.providers.refusals.case import NOW
from tests.core.providers.refusals.tables import CASES


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def refused() -> str:
    """A URL where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def _raised(call: Callable[[str], None], url: str) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each library raises its own
        call(url)
    if isinstance(caught.value, urllib.error.HTTPError):
        caught.value.close()
    return caught.value


REFUSALS = [
    (case, caller) for case in CASES for caller in SDKS.get(case.kind, [])[:1] if case.status >= 400 and case.body
]


@pytest.mark.parametrize(("case", "call"), REFUSALS, ids=[f"{case.kind}: {case.name}" for case, _ in REFUSALS])
def test_the_sdks_exceptions_mean_what_the_responses_mean(
    case: Any, call: Callable[[str], None], server: Server
) -> None:
    body = json.loads(case.body) if isinstance(case.body, str) else case.body
    server.answer(case.status, dict(case.headers), body)
    failure = dialect(case.kind).failure_of(_raised(call, server.url), NOW)
    assert failure is not None
    assert {name: getattr(failure, name) for name in case.expected} == pytest.approx(case.expected)


TPM = next(case for case in CASES if case.name == "tokens per minute")


@pytest.mark.parametrize("call", CALLERS)
def test_every_library_tells_status_and_delay(call: Callable[[str], None], server: Server) -> None:
    server.answer(429, {"retry-after": "7"}, TPM.body)
    failure = read_failure(_raised(call, server.url), None, NOW)
    assert failure is not None
    assert (failure.kind, failure.retry_after, failure.status, failure.sent) == (FailureKind.WAIT, 7.0, 429, True)
    if call not in {call_with_aiohttp, call_with_urllib}:  # these two keep no body
        assert (failure.resource, failure.limit) == (Resource.TOKENS, 500_000)


@pytest.mark.parametrize("call", CALLERS)
def test_a_refused_connection_was_not_sent(call: Callable[[str], None], refused: str) -> None:
    failure = read_failure(_raised(call, refused), None, NOW)
    assert failure is not None
    assert (failure.kind, failure.sent, failure.status) == (FailureKind.TRANSIENT, False, None)


@pytest.mark.parametrize("call", CALLERS)
def test_a_connection_that_breaks_may_have_been_sent(call: Callable[[str], None], server: Server) -> None:
    server.hang_up = True
    failure = read_failure(_raised(call, server.url), None, NOW)
    assert failure is not None
    assert (failure.kind, failure.sent, failure.status) == (FailureKind.TRANSIENT, True, None)


def test_errors_inside_a_stream(server: Server) -> None:
    events = {"content-type": "text/event-stream"}
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    server.answer(200, events, f"event: error\ndata: {json.dumps(overloaded)}\n\n".encode())
    error = _raised(call_with_anthropic, server.url)
    assert isinstance(error, anthropic.APIStatusError)
    assert error.status_code == 200
    failure = dialect("anthropic").failure_of(error, NOW)
    assert failure is not None
    assert failure.kind is FailureKind.OVERLOADED

    server.answer(200, events, b'data: {"error": {"message": "m", "type": "t", "code": "rate_limit_exceeded"}}\n\n')
    error = _raised(call_with_openai, server.url)
    assert getattr(error, "status_code", None) is None
    failure = dialect("openai").failure_of(error, NOW)
    assert failure is not None
    assert (failure.kind, failure.code) == (FailureKind.WAIT, "rate_limit_exceeded")


def _like(name: str, module: str, message: str = "", **attributes: Any) -> BaseException:
    """An exception as a library raises it; checked against the real ones: groq 1.7, mistralai 3.7, …, litellm 1.106."""
    error: BaseException = type(name, (Exception,), {"__module__": module})(message)
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    return error


TOO_MANY = {"message": "Too many tokens, please wait before trying again.", "Code": "ThrottlingException"}


@pytest.mark.parametrize(
    ("error", "kind", "expected"),
    [
        (
            _like(
                "ThrottlingException",
                "botocore.errorfactory",
                response={
                    "Error": {"Message": TOO_MANY["message"], "Code": TOO_MANY["Code"]},
                    "ResponseMetadata": {"HTTPStatusCode": 429, "HTTPHeaders": {"x-amz-retry-after": "750"}},
                },
            ),
            None,
            Failure(
                FailureKind.WAIT,
                0.75,
                Resource.TOKENS,
                code="throttlingexception",
                message=TOO_MANY["message"],
                status=429,
            ),
        ),
        (
            _like(
                "SDKError",
                "mistralai.client.errors.sdkerror",
                status_code=429,
                body='{"message": "Service tier capacity exceeded for this model.", "code": "3505"}',
                headers=httpx2.Headers({"x-request-id": "1"}),
            ),
            None,
            Failure(
                FailureKind.OVERLOADED,
                code="3505",
                message="Service tier capacity exceeded for this model.",
                status=429,
            ),
        ),
        (
            _like(
                "TooManyRequestsError",
                "cohere.errors.too_many_requests_error",
                status_code=429,
                body={"message": "You are past the per minute request limit, please wait and try again later."},
                headers={"retry-after": "3"},
            ),
            None,
            Failure(
                FailureKind.WAIT,
                3.0,
                Resource.REQUESTS,
                "minute",
                message="You are past the per minute request limit, please wait and try again later.",
                status=429,
            ),
        ),
        (
            _like(
                "RateLimitError",
                "litellm.exceptions",
                'litellm.RateLimitError: GeminiException - {"error": {"code": 429, "message": "m", '
                '"details": [{"violations": [{"quotaId": "GenerateRequestsPerMinute", "quotaValue": "15"}]}]}}',
                status_code=429,
                llm_provider="gemini",
                litellm_response_headers={"retry-after": "4"},
                response=httpx.Response(429),
            ),
            "openai",  # LiteLLM says better whose it is
            Failure(FailureKind.WAIT, 4.0, Resource.REQUESTS, "minute", limit=15, message="m", status=429),
        ),
        (
            _like(
                "RateLimitError",
                "litellm.exceptions",
                "litellm.RateLimitError: OpenAIException - You exceeded your current quota, please check",
                status_code=429,
                llm_provider="openai",
            ),
            None,
            Failure(
                FailureKind.NO_CREDIT,
                message="litellm.RateLimitError: OpenAIException - You exceeded your current quota, please check",
                status=429,
            ),
        ),
    ],
    ids=["botocore", "mistralai", "cohere", "litellm with a body", "litellm with a sentence"],
)
def test_exceptions_of_sdks_that_are_not_installed_here(
    error: BaseException, kind: str | None, expected: Failure
) -> None:
    assert read_failure(error, kind, NOW) == expected


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        KeyError("usage"),
        FileNotFoundError("prompt.txt"),
        ZeroDivisionError(),
        RuntimeError("a 429 that nobody sent"),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        GeneratorExit(),
        openai.OpenAIError("api_key must be set"),
        httpx.UnsupportedProtocol("no scheme"),
        httpx2.UnsupportedProtocol("no scheme"),
        aiohttp.web.HTTPNotFound(),
        _like("HTTPException", "starlette.exceptions", status_code=404, detail="not the provider's"),
        LimitExceeded(Decision(admitted=False)),
        AcquireTimeout(Decision(admitted=False)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_no_provider_caused(error: BaseException) -> None:
    assert read_failure(error, None, NOW) is None
    assert dialect("openai").failure_of(error, NOW) is None


def test_a_bug_while_handling_a_failure_is_still_a_bug() -> None:
    bug = KeyError("usage")
    bug.__context__ = httpx.ReadTimeout("slow")
    assert read_failure(bug, None, NOW) is None


def test_our_own_error_raised_inside_a_transport_is_not_the_providers() -> None:
    def refuse(_: httpx2.Request) -> httpx2.Response:
        raise LimitExceeded(Decision(admitted=False))

    http_client = httpx2.Client(transport=httpx2.MockTransport(refuse))
    with (
        anthropic.Anthropic(api_key="k", max_retries=0, http_client=http_client) as client,
        pytest.raises(anthropic.APIConnectionError) as caught,
    ):
        client.messages.create(model="m", messages=HI, max_tokens=9)
    assert read_failure(caught.value, None, NOW) is None


@pytest.mark.parametrize(
    ("message", "stale"),
    [
        ("Event loop is closed", True),
        ("<asyncio.locks.Event object at 0x7f [unset]> is bound to a different event loop", True),
        ("Task <Task pending> got Future <Future pending> attached to a different loop", True),
        ("the server went away", False),
    ],
)
def test_a_connection_of_another_event_loop(message: str, stale: bool) -> None:
    lost = anthropic.APIConnectionError(request=httpx2.Request("POST", "https://api.anthropic.com/v1/messages"))
    lost.__cause__ = RuntimeError(message)
    failure = read_failure(lost, None, NOW)
    assert failure is not None
    assert (failure.kind, failure.sent, failure.stale) == (FailureKind.TRANSIENT, True, stale)


def test_a_framework_that_wraps_the_error() -> None:
    wrapped = RuntimeError("the chain failed")
    wrapped.__cause__ = httpx.ConnectTimeout("slow")
    failure = read_failure(wrapped, None, NOW)
    assert failure is not None
    assert (failure.kind, failure.sent) == (FailureKind.TRANSIENT, False)


def test_a_certificate_that_is_refused_is_not_retried() -> None:
    error = httpx.ConnectError("certificate verify failed")
    error.__cause__ = ssl.SSLCertVerificationError("self-signed")
    failure = read_failure(error, None, NOW)
    assert failure is not None
    assert (failure.kind, failure.sent) == (FailureKind.FATAL, False)


@pytest.mark.parametrize("error", [TimeoutError(), asyncio.TimeoutError(), ConnectionResetError(), BrokenPipeError()])
def test_pythons_own_connection_errors(error: BaseException) -> None:
    failure = read_failure(error, None, NOW)
    assert failure is not None
    assert (failure.kind, failure.sent) == (FailureKind.TRANSIENT, True)


def test_the_kind_is_told_by_the_url_first() -> None:
    request = httpx2.Request("POST", "https://api.groq.com/openai/v1/chat/completions")
    body = {"message": "m", "code": None, "type": None}
    error = openai.APIStatusError("m", response=httpx2.Response(498, request=request), body=body)
    failure = read_failure(error, None, NOW)
    assert failure is not None
    assert failure.kind is FailureKind.OVERLOADED  # 498 means that to Groq alone
