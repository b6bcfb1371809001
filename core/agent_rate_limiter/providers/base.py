"""A provider's dialect: what its requests, responses, headers and errors mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers import request
from agent_rate_limiter.providers.headers import HeaderRow, generic, lowered, retry_after, server_time, stated
from agent_rate_limiter.providers.model import Failure, FailureKind, Quota
from agent_rate_limiter.providers.responses import read_usage
from agent_rate_limiter.providers.rules import Rule, judge, kind_of_status, status_meant
from agent_rate_limiter.providers.stream import StreamReader
from agent_rate_limiter.providers.told import Amounts, Told, amounts, read_error, told_delay
from agent_rate_limiter.redaction import harmless
from agent_rate_limiter.usage import Estimate, Usage

_LONG_PERIODS = {"day", "week", "month"}


def openai_row(
    resource: Resource, period: str | None, what: str, *resets: str, pool: str = "", refills: bool = False
) -> HeaderRow:
    """The header names that OpenAI brought into use, for one quota; `resets` are further names of the reset."""
    limit, remaining, reset = (f"x-ratelimit-{part}-{what}" for part in ("limit", "remaining", "reset"))
    return HeaderRow(resource, period, limit, remaining, (reset, *resets), pool=pool, refills=refills)


def openai_rows(requests: str | None = None, *, refills: bool = False) -> tuple[HeaderRow, ...]:
    """The usual pair of them: tokens by the minute, requests by whatever one provider means."""
    return (
        openai_row(Resource.REQUESTS, requests, "requests", refills=refills),
        openai_row(Resource.TOKENS, "minute", "tokens", refills=refills),
    )


@dataclass(frozen=True)
class Dialect:
    """What one provider's requests, responses, headers and errors mean. Pure, and never raises on what it reads.

    Args:
        kind: the dialect's name, as in a provider's `kind`.
        rows: its quota headers.
        rules: its errors.
        hosts: suffixes of the hosts that speak it.
        media_tokens: what an image, a sound or a document counts for in an estimate.
        stream_options: whether it takes `stream_options.include_usage`.
    """

    kind: str
    rows: tuple[HeaderRow, ...] = field(default_factory=openai_rows)
    rules: tuple[Rule, ...] = ()
    hosts: tuple[str, ...] = ()
    media_tokens: int = 1_000
    stream_options: bool = False

    # ------------------------------------------------------------------ requests

    def model(self, path: str, body: object) -> str | None:
        """The model (Azure: the deployment) that a request asks for; None when it names none.

        Args:
            path: the URL's path, as sent.
            body: the parsed JSON body.
        """
        return request.model(path, body)

    def renamed(self, path: str, body: object, model: str) -> tuple[str | None, dict[str, Any] | None]:
        """Change a request so that it asks for another model of the same provider.

        Returns:
            The changed path and None, or None and a changed copy of the body, wherever it names the model; twice
            None where it names none.
        """
        return request.renamed(path, body, model)

    def counted(self, method: str, path: str) -> bool:
        """Whether a request is a model call; lists of models, files, batches and token counts are not."""
        return request.counted(method, path)

    def estimate(self, path: str, body: object) -> Estimate:
        """What a request is expected to use: input tokens from its text, and the most output that it allows."""
        return request.estimate(path, body, self.media_tokens)

    def with_usage(self, path: str, body: object) -> dict[str, Any] | None:
        """Change a request so that its stream reports usage.

        Returns:
            A changed copy of the body, whose stream then ends with a chunk without choices; None when nothing needs
            changing, the caller decided for themselves, or the provider does not know the option.
        """
        return request.with_usage(path, body) if self.stream_options else None

    # ------------------------------------------------------------------ responses

    def usage(self, body: object) -> Usage | None:
        """What a parsed response says was used; None when it does not say."""
        return read_usage(body)

    def reader(self, headers: object = None, now: float = 0.0) -> StreamReader:
        """Start reading a stream.

        Args:
            headers: the stream's response headers: a refusal inside the stream has its delay there.
            now: epoch seconds at the response, for absolute times in those headers.
        """
        return StreamReader(lambda event: self.failure(200, headers, event, now))

    def quotas(self, headers: object, now: float) -> list[Quota]:
        """The quotas that a response's headers state.

        Args:
            headers: any mapping or pairs, names in any case.
            now: epoch seconds at the response.
        """
        fields = lowered(headers)
        return stated(self.rows, fields, now) or generic(fields, now)

    # ------------------------------------------------------------------ errors

    def failure(self, status: int | None, headers: object, body: object, now: float) -> Failure:
        """What a response that failed means.

        Args:
            status: its HTTP status; below 400 or None for an error inside a stream, which its body then tells.
            headers: any mapping or pairs.
            body: parsed, text, bytes or None.
            now: epoch seconds at the response.
        """
        fields = lowered(headers)
        told = read_error(body)
        error_type = fields.get("x-amzn-errortype", "").partition(":")[0].lower()
        if error_type and error_type not in told.codes:
            told = told._replace(codes=(error_type, *told.codes))
        return self._judged(status, {**told.headers, **fields}, told, now)

    def failure_of(self, error: BaseException, now: float) -> Failure | None:
        """What an SDK's or an HTTP library's exception means; None when the provider did not cause it.

        Args:
            error: any exception.
            now: epoch seconds.
        """
        from agent_rate_limiter.providers.exceptions import failure_of

        return failure_of(self, error, now)

    def _judged(self, status: int | None, fields: dict[str, str], told: Told, now: float) -> Failure:
        meant = status_meant(status, told)
        rule = judge(self.rules, meant, told)
        found = self._amounts(told)
        found = found._replace(resource=found.resource or (rule.resource if rule else None))
        kind = rule.kind if rule else _obeying(fields, kind_of_status(meant))
        if kind is FailureKind.WAIT:
            quotas = [quota for quota in self.quotas(fields, now) if not quota.pool]
            found = _completed(found, quotas)
            kind = _refined(kind, found, quotas)
        return Failure(
            kind=kind,
            retry_after=self._delay(fields, told, found, now),
            resource=found.resource,
            period=found.period,
            limit=found.limit,
            used=found.used,
            requested=found.requested,
            code=(rule.code if rule else "") or told.code,
            message=harmless(told.message),
            status=status,
        )

    def _amounts(self, told: Told) -> Amounts:
        """The dimension and numbers in an error; OpenAI's type names the dimension where its sentence does not."""
        found = amounts(told.message)
        if found.resource is None:
            named = next((code for code in told.codes if code in {"tokens", "requests"}), None)
            return found._replace(resource=Resource(named) if named else None)
        return found

    def _delay(self, fields: dict[str, str], told: Told, found: Amounts, now: float) -> float | None:  # noqa: ARG002 - for dialects
        delay = retry_after(fields, now)
        if delay is None:
            delay = told_delay(told.message, server_time(fields, now))
        if delay is None:  # of a window the reset is the delay; of a bucket that refills (OpenAI, Anthropic) it is not
            spent = _drained(generic(fields, now))
            return spent.reset_after if spent else None
        return delay


def _refined(kind: FailureKind, found: Amounts, quotas: list[Quota]) -> FailureKind:
    """Tell what waiting is good for: nothing without any quota, nothing for what never fits, a reset for a day's."""
    if found.limit == 0 or any(quota.limit == 0 for quota in quotas):
        return FailureKind.NO_CREDIT
    if found.limit is not None and found.requested is not None and found.requested > found.limit:
        return FailureKind.TOO_LARGE
    return FailureKind.PARKED if found.period in _LONG_PERIODS else kind


def _completed(found: Amounts, quotas: list[Quota]) -> Amounts:
    """Take from the headers what the error does not say: the dimension of which nothing is left, and its period."""
    spent = _drained(quotas)
    if spent is None or found.resource not in {None, spent.resource}:
        return found
    period = spent.period if isinstance(spent.period, str) else None
    return found._replace(resource=spent.resource, period=found.period or period)


def _drained(quotas: list[Quota]) -> Quota | None:
    """The quota of which the headers say that nothing is left."""
    return next((quota for quota in quotas if quota.remaining is not None and quota.remaining <= 0), None)


def _obeying(fields: Mapping[str, str], kind: FailureKind) -> FailureKind:
    """`x-should-retry` (OpenAI, Anthropic) overrules what the status says about retrying."""
    told = fields.get("x-should-retry")
    if told == "true" and kind is FailureKind.FATAL:
        return FailureKind.TRANSIENT
    return FailureKind.FATAL if told == "false" and kind is FailureKind.TRANSIENT else kind
