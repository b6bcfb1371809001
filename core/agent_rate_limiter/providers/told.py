"""What an error says, whatever its shape: codes, a sentence, numbers in the sentence. Nothing here raises."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from agent_rate_limiter.limit_text import SHORTHANDS
from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers.durations import epoch, seconds, sensible
from agent_rate_limiter.providers.headers import lowered
from agent_rate_limiter.providers.shapes import is_list, is_mapping, mapping, mappings
from agent_rate_limiter.providers.shapes import parsed as json_of

_LONGEST = 100_000  # characters of a body that are parsed
_SENTENCE = 4_000  # characters of a message that are searched
_CODE_IN_TEXT = re.compile(  # snake-case words, and AWS's exceptions (LiteLLM's own are called so too)
    r"\b[a-z]+(?:_[a-z]+)+\b|\b(?:throttling|\w+exceeded|\w+unavailable|model\w+|internalserver|\w+denied)exception\b"
)
_CODE_FIELDS = ("error_code", "code", "__type", "reason", "type", "error_type", "status")
_NO_CODES = {"", "error", "none", "unknown"}


class Told(NamedTuple):
    """An error as its body tells it.

    `codes` are in lower case, the most telling first; `message` is the sentence as told; `details` and `headers` are
    what some providers nest inside (Google's details, OpenRouter's metadata).
    """

    codes: tuple[str, ...] = ()
    message: str = ""
    details: tuple[Mapping[str, Any], ...] = ()
    headers: Mapping[str, str] = {}

    @property
    def status(self) -> int | None:
        """The HTTP status that the body itself names."""
        return next((int(code) for code in self.codes if re.fullmatch(r"[45]\d\d", code)), None)

    @property
    def code(self) -> str:
        """The most telling code."""
        return next((code for code in self.codes if not re.fullmatch(r"[1-5]\d\d", code)), "")


class Amounts(NamedTuple):
    """The numbers and dimensions in an error's sentence."""

    resource: Resource | None = None
    period: str | None = None
    limit: int | None = None
    used: int | None = None
    requested: int | None = None


def read_error(body: object) -> Told:
    """Read an error's body: JSON as text, bytes or parsed, of any provider, or plain text."""
    if isinstance(body, (bytes, bytearray)):
        body = bytes(body[:_LONGEST]).decode("utf-8", "replace")
    text = body[:_LONGEST] if isinstance(body, str) else ""
    parsed = _json_in(text) if text else body
    if is_list(parsed):  # Gemini wraps a stream's error in a list
        parsed = next(iter(mappings(parsed)), None)
    if not is_mapping(parsed):
        return Told(tuple(_CODE_IN_TEXT.findall(text[:_SENTENCE].lower())), text)
    return _told_by(parsed, text)


def _json_in(text: str) -> object:
    """Parse JSON, also inside a sentence: LiteLLM and frameworks quote the provider's body."""
    start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=-1)
    end = max(text.rfind("}"), text.rfind("]"))
    if start < 0 or end <= start:
        return None
    return json_of(text[start : end + 1])


def _told_by(body: Mapping[str, Any], text: str) -> Told:
    error = body.get("error")
    inner = mapping(error)
    metadata = mapping(inner.get("metadata"))
    nested = inner.get("details", body.get("details"))
    details = tuple(mappings(nested))
    places = (mapping(nested), inner, metadata, body, *details)
    codes = dict.fromkeys(code for field in _CODE_FIELDS for place in places for code in _code(place.get(field)))
    sentences = (inner.get("message"), error, body.get("message"), body.get("Message"), body.get("detail"))
    spoken = [sentence for sentence in sentences if isinstance(sentence, str) and sentence][:1]
    spoken += [raw for raw in (metadata.get("raw"),) if isinstance(raw, str)]
    return Told(tuple(codes), " ".join(spoken) or text, details, lowered(mapping(metadata.get("headers"))))


def _code(value: object) -> Iterator[str]:
    """AWS writes `ThrottlingException:http://…` and `com.amazon#ThrottlingException`."""
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        code = str(value).split("#")[-1].split(":")[0].strip().lower()[:100]
        if code not in _NO_CODES:
            yield code


# ------------------------------------------------------------------ numbers in sentences

_PERIOD_WORDS = {"sec": "second", "min": "minute"}
_COUNTED = {
    "request": Resource.REQUESTS,
    "call": Resource.REQUESTS,
    "input token": Resource.INPUT_TOKENS,
    "output token": Resource.OUTPUT_TOKENS,
    "token": Resource.TOKENS,
}
_COUNTED_WORD = r"(?P<counted>(?:input |output )?tokens?|requests?|(?:api )?calls?)"
_PERIOD_WORD = r"(?P<period>sec(?:ond)?|min(?:ute)?|hour|day|week|month)\b"

SENTENCES: tuple[tuple[str, str], ...] = (
    # What it looks like, and whose it is; how it is read. The first match per name counts.
    ("OpenAI, Groq: on tokens per min (TPM)", r"\((?P<shorthand>rps|rpm|rpd|tpm|tpd|itpm|otpm)\)"),
    (
        "OpenAI, Groq: Limit 500000, Used 442231, Requested 249686",
        r"limit:? (?P<limit>[\d,]+)(?: / \w+)?, (?:used:? (?P<used>[\d,]+), )?requested:? (?P<requested>[\d,]+)",
    ),
    (
        "Anthropic: rate limit of 50,000 input tokens per minute",
        rf"limit of (?P<limit>[\d,]+) {_COUNTED_WORD} per {_PERIOD_WORD}",
    ),
    ("Anthropic, ramp: Your current limit is 58,276", r"current limit is (?P<limit>[\d,]+)"),
    (
        "Cohere: limited to 1000 API calls / month",
        rf"limited to (?P<limit>[\d,]+) {_COUNTED_WORD} ?/ ?{_PERIOD_WORD}",
    ),
    ("Gemini: Quota exceeded for metric: requests, limit: 20, model: m", r"limit: (?P<limit>[\d,]+)"),
    ("xAI: (actual/limit): 2/2", r"\(actual/limit\): (?P<used>[\d,]+)/(?P<limit>[\d,]+)"),
    ("Bedrock: Too many tokens per day", rf"{_COUNTED_WORD}(?: per |/){_PERIOD_WORD}"),
    ("Cohere: past the per minute request limit", rf"per {_PERIOD_WORD} {_COUNTED_WORD}"),
    ("OpenRouter: free-models-per-day", rf"\bper[ -]{_PERIOD_WORD}"),
    ("Azure: have exceeded token rate limit", rf"exceeded (?:the )?{_COUNTED_WORD} rate limit"),
    # The reason phrase of 429, "Too Many Requests", alone says nothing.
    (
        "Bedrock: Too many tokens, please wait; xAI: Too many requests for team",
        rf"too many {_COUNTED_WORD}(?=, | for )",
    ),
)
_SENTENCES = tuple(re.compile(pattern, re.IGNORECASE) for _, pattern in SENTENCES)


def amounts(message: str) -> Amounts:
    """Find the dimension, the period and the numbers that an error's sentence names."""
    found: dict[str, str] = {}
    for pattern in _SENTENCES:
        match = pattern.search(message[:_SENTENCE])
        if match is not None:
            for name, value in match.groupdict().items():
                if value:
                    found.setdefault(name, value.lower())
    resource, period = SHORTHANDS.get(found.get("shorthand", ""), (None, None))
    counted, word = found.get("counted", "").removeprefix("api ").removesuffix("s"), found.get("period", "")
    return Amounts(
        resource or _COUNTED.get(counted),
        period or _PERIOD_WORDS.get(word, word) or None,
        *(_amount(found.get(name)) for name in ("limit", "used", "requested")),
    )


def _amount(text: str | None) -> int | None:
    digits = (text or "").replace(",", "")
    return int(digits) if 0 < len(digits) <= 18 else None  # noqa: PLR2004 - what fits 64 bits


_UNIT = r"(?:ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d)(?![a-z])"
_SPANS = re.compile(
    rf"(?:try again|retry|reset\w*|wait)\D{{0,20}}((?:\d{{1,9}}(?:\.\d{{1,12}})?\s*{_UNIT}[ ,]*)+)", re.IGNORECASE
)
_MOMENT = re.compile(r"\b(\d{4}-\d\d-\d\d)(?: at |[ T])(\d\d:\d\d)(:\d\d)?(?:\.\d+)?(?: ?UTC|Z)", re.IGNORECASE)
_NEXT_MINUTE = "at the next minute boundary"  # Anthropic's ramp limit


def told_delay(message: str, server_now: float) -> float | None:
    """Find the wait in an error's sentence.

    Known are "Please try again in 6m54.72s" (OpenAI, Groq), "retry after 22 seconds" (Azure), "retry in 45.8s"
    (Gemini), "regain access on 2026-12-01 at 00:00 UTC" and "at the next minute boundary" (Anthropic).

    Args:
        message: the sentence.
        server_now: the server's clock, epoch seconds.

    Returns:
        Seconds; None when the sentence tells none.
    """
    sentence = message[:_SENTENCE]
    span = _SPANS.search(sentence)
    if span is not None:
        return seconds(_compact(span[1]))
    moment = _MOMENT.search(sentence)
    if moment is not None:
        at = epoch(f"{moment[1]}T{moment[2]}{moment[3] or ':00'}Z")
        return None if at is None else sensible(at - server_now)
    return 60 - server_now % 60 if _NEXT_MINUTE in sentence else None


def _compact(span: str) -> str:
    """Turn `2 minutes 5 seconds` into `2m5s`, as durations are read."""
    text = re.sub(r"milliseconds?", "ms", span.lower().replace(",", " "))
    return re.sub(r"(?<=[\d\s])(ms|[smhd])[a-z]*\s*", r"\1", text).replace(" ", "")
