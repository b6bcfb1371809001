"""Which error means what: one table per provider, read from top to bottom, the first match decides.

Codes and substrings are in lower case. What no table matches is decided by its HTTP status.
Sources: the providers' error pages, their SDKs and captured bodies, November 2026; "?" marks what was not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers.model import FailureKind
from agent_rate_limiter.providers.told import Told

WAIT, NO_CREDIT, OVERLOADED = FailureKind.WAIT, FailureKind.NO_CREDIT, FailureKind.OVERLOADED
TOO_LARGE, TRANSIENT, FATAL = FailureKind.TOO_LARGE, FailureKind.TRANSIENT, FailureKind.FATAL


class Rule(NamedTuple):
    """Every condition that is given must hold.

    Args:
        kind: what such an error means.
        statuses: HTTP statuses that it may have; any when empty.
        codes: it has one of these codes.
        text: its sentence holds this.
        resource: the dimension that binds, where the sentence does not say it.
        code: the code to report, where the error carries none.
    """

    kind: FailureKind
    statuses: tuple[int, ...] = ()
    codes: tuple[str, ...] = ()
    text: str = ""
    resource: Resource | None = None
    code: str = ""

    def matches(self, status: int, told: Told, sentence: str) -> bool:
        """Tell whether an error is of this kind."""
        return (
            (not self.statuses or status in self.statuses)
            and (not self.codes or any(code in self.codes for code in told.codes))
            and self.text in sentence
        )


OPENAI = (
    # Check the code, not only the type: the newer codes come with type insufficient_quota or none.
    Rule(NO_CREDIT, codes=("insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached")),
    Rule(NO_CREDIT, codes=("organization_spend_limit_exceeded", "project_spend_limit_exceeded")),
    Rule(NO_CREDIT, codes=("organization_usage_limit_exceeded", "billing_not_active")),
    # LiteLLM keeps the sentence of insufficient_quota but not its code.
    Rule(NO_CREDIT, (429,), text="you exceeded your current quota"),
    # "Request too large for gpt-… on tokens per min (TPM): Limit 30000, Requested 32042": 429, on Groq 413.
    Rule(TOO_LARGE, (413, 429), text="request too large"),
    # 503 "Slow Down": cut the rate, hold it for 15 minutes, then ramp.
    Rule(OVERLOADED, (503,), text="slow down", code="slow_down"),
    Rule(OVERLOADED, (503,), codes=("slow_down",)),
    # Flex processing: "429 Resource Unavailable".
    Rule(OVERLOADED, (429,), codes=("resource_unavailable",)),
    Rule(OVERLOADED, (429,), text="resource unavailable", code="resource_unavailable"),
    Rule(OVERLOADED, (429, 500, 503), text="overloaded"),
)

AZURE = (
    Rule(OVERLOADED, (429,), text="experiencing high demand"),
    *OPENAI,
)

GROQ = (
    Rule(OVERLOADED, (498,), code="capacity_exceeded"),  # flex tier capacity exceeded
    *OPENAI,
)

ANTHROPIC = (
    Rule(NO_CREDIT, codes=("enforced_spend_limit_reached", "contract_spend_limit_reached")),
    Rule(NO_CREDIT, codes=("linked_organization_spend_limit_reached", "billing_error")),
    # These two are 400 invalid_request_error.
    Rule(NO_CREDIT, text="your credit balance is too low", code="credit_balance_too_low"),
    Rule(NO_CREDIT, text="you have reached your specified", code="usage_limit_reached"),
    # 429, on accounts without it: waiting does not help.
    Rule(NO_CREDIT, (429,), text="extra usage is required for long context", code="extra_usage_required"),
    Rule(OVERLOADED, codes=("overloaded_error",)),
    Rule(TOO_LARGE, codes=("request_too_large",)),
)

GEMINI = (
    # "You exceeded your current quota, please check your plan and billing details" is in every 429 of Gemini and
    # means nothing: the quotaId says which quota it is.
    Rule(OVERLOADED, codes=("model_capacity_exhausted",)),
    Rule(NO_CREDIT, (402, 403, 429), text="prepayment credits are depleted"),  # ?
    Rule(NO_CREDIT, (402, 403, 429), text="spending cap"),  # ?
    Rule(OVERLOADED, (429, 503), text="model is overloaded"),
)

BEDROCK = (
    Rule(NO_CREDIT, codes=("servicequotaexceededexception",)),
    Rule(OVERLOADED, codes=("modelnotreadyexception", "serviceunavailableexception")),
    # "Too many tokens, please wait before trying again." is no context overflow.
    Rule(WAIT, codes=("throttlingexception", "throttling", "throttledexception", "toomanyrequestsexception")),
    Rule(WAIT, codes=("requestlimitexceeded", "requestthrottledexception", "slowdown")),
    Rule(TRANSIENT, codes=("modeltimeoutexception", "modelerrorexception", "modelstreamerrorexception")),
    Rule(TRANSIENT, codes=("internalserverexception", "requesttimeout", "requesttimeoutexception")),
    Rule(FATAL, codes=("validationexception", "accessdeniedexception", "resourcenotfoundexception")),
)

MISTRAL = (
    Rule(OVERLOADED, codes=("3505",)),  # service tier capacity exceeded for this model
    Rule(WAIT, codes=("1300", "rate_limited")),
)

XAI = (
    # Code resource-exhausted means both; the sentence tells them apart.
    Rule(NO_CREDIT, text="free usage quota exceeded"),
    Rule(NO_CREDIT, text="used all available credits"),  # ?
    Rule(NO_CREDIT, text="monthly spending limit"),  # ?
)

DEEPSEEK = (
    Rule(WAIT, (429,), resource=Resource.CONCURRENCY),  # the only limit there is
)

OPENROUTER = (
    Rule(NO_CREDIT, (403,), text="key limit exceeded"),  # ? the key's own credit limit
)

FIREWORKS = (
    Rule(NO_CREDIT, (412,), text="suspended"),  # ? spending limit or unpaid invoices
)

ANYONE = (
    # Gateways pass on other providers' errors.
    Rule(NO_CREDIT, codes=("insufficient_quota", "credit_balance_exhausted", "billing_error", "insufficient_credits")),
    Rule(TOO_LARGE, (413, 429), text="request too large"),
    Rule(OVERLOADED, codes=("overloaded_error", "server_overloaded", "engine_overloaded", "model_overloaded")),
)

_BY_STATUS = {402: NO_CREDIT, 413: TOO_LARGE, 429: WAIT, 503: OVERLOADED, 529: OVERLOADED} | dict.fromkeys(
    (408, 409, 425, 499), TRANSIENT
)

# The status that a code stands for, where the response had none of its own: an error inside a stream.
_STATUS_OF_CODE = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "rate_limited": 429,
    "too_many_requests": 429,
    "insufficient_quota": 429,
    "resource_exhausted": 429,
    "resource-exhausted": 429,
    "throttlingexception": 429,
    "overloaded_error": 529,
    "unavailable": 503,
    "serviceunavailableexception": 503,
    "billing_error": 402,
    "request_too_large": 413,
    "authentication_error": 401,
    "unauthenticated": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "accessdeniedexception": 403,
    "not_found_error": 404,
    "not_found": 404,
    "failed_precondition": 400,
    "out_of_range": 400,
    "validationexception": 400,
}
_REFUSALS_START = ("invalid", "image_", "empty_image", "unsupported_", "failed_to_download", "content_")
_REFUSALS_END = ("_policy", "_violation", "_mismatch", "_filter")


def status_meant(status: int | None, told: Told) -> int:
    """The HTTP status that an error would have had: a stream that began with 200 can still carry a refusal."""
    if status is not None and status >= 400:  # noqa: PLR2004 - an error's own status
        return status
    if told.status is not None:
        return told.status
    for code in told.codes:
        if code in _STATUS_OF_CODE:
            return _STATUS_OF_CODE[code]
        if code.startswith(_REFUSALS_START) or code.endswith(_REFUSALS_END):
            return 400
    return 500


def kind_of_status(status: int) -> FailureKind:
    """What an error means when nothing but its HTTP status is known."""
    return _BY_STATUS.get(status, TRANSIENT if status >= 500 else FATAL)  # noqa: PLR2004 - a server error


def judge(rules: Sequence[Rule], status: int, told: Told) -> Rule | None:
    """Find the first rule, of the provider's or else of anyone's, that an error matches."""
    sentence = told.message[:4_000].lower()
    return next((rule for rule in (*rules, *ANYONE) if rule.matches(status, told, sentence)), None)
