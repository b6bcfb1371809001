"""Limits as people write them: "40 requests/week", "$5/day", "10 concurrent", and by their usual names (`rpm`)."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import NoReturn

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limits import PERIOD_SECONDS, Limit, Resource, check_positive

SHORTHANDS: Mapping[str, tuple[Resource, str | None]] = {
    "rps": (Resource.REQUESTS, "second"),
    "rpm": (Resource.REQUESTS, "minute"),
    "rpd": (Resource.REQUESTS, "day"),
    "tpm": (Resource.TOKENS, "minute"),
    "tpd": (Resource.TOKENS, "day"),
    "itpm": (Resource.INPUT_TOKENS, "minute"),
    "otpm": (Resource.OUTPUT_TOKENS, "minute"),
    "concurrency": (Resource.CONCURRENCY, None),
}

_SUFFIX = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}
_LIMIT_TEXT = re.compile(
    r"(?P<dollar>\$)?\s*(?P<amount>\d+(?:[,_]\d{3})*(?:\.\d+)?)\s*(?P<suffix>[kKmMbBgG](?![a-zA-Z]))?"
    r"\s*(?P<resource>at once|[a-zA-Z_]+(?: tokens?)?)?"
    r"(?:\s*(?:/|\bper\b)\s*(?P<every>\d+(?:\.\d+)?)?\s*(?P<period>[a-zA-Z]+))?"
)
_RESOURCE_WORDS = {
    "request": Resource.REQUESTS,
    "call": Resource.REQUESTS,
    "token": Resource.TOKENS,
    "input token": Resource.INPUT_TOKENS,
    "output token": Resource.OUTPUT_TOKENS,
    "dollar": Resource.COST,
    "usd": Resource.COST,
    "cost": Resource.COST,
    "at once": Resource.CONCURRENCY,
    "concurrent": Resource.CONCURRENCY,
    "concurrency": Resource.CONCURRENCY,
}
_PERIOD_WORDS = {"s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour", "hr": "hour", "d": "day"}


def read_limit(text: str) -> tuple[Resource, float, float | str | None]:
    """Return the resource, the amount and the period that a text names; None is no period.

    Raises:
        ConfigError: it names none.
    """
    found = _LIMIT_TEXT.fullmatch(text.strip().removesuffix(" in total")) if isinstance(text, str) else None
    if found is None:
        _refuse(text, "write it like '40 requests/week', '1M tokens/day', '$5/day' or '10 concurrent'")
    number = Decimal(found["amount"].replace(",", "").replace("_", "")) * _SUFFIX[(found["suffix"] or "").upper()]
    amount = int(number) if number == int(number) else float(number)
    resource = _resource_word(text, found["dollar"], found["resource"])
    return resource, amount, None if found["period"] is None else _period_word(text, found)


def shorthand(name: str, amount: float, *, counts: str = "actual", strategy: str = "") -> Limit:
    """Make the limit that a shorthand such as `rpm` or `tpm` stands for.

    Raises:
        ConfigError: the shorthand is unknown or the amount makes no sense.
    """
    if name not in SHORTHANDS:
        raise ConfigError(f"shorthand is {name!r}: it is one of {', '.join(SHORTHANDS)}.")
    resource, per = SHORTHANDS[name]
    check_positive(name, amount)
    if amount != int(amount):
        raise ConfigError(f"{name} is {amount!r}: give a whole number.")
    strategy = "" if resource is Resource.CONCURRENCY else strategy
    return Limit(resource, amount, per, counts=counts, strategy=strategy)


def _resource_word(text: str, dollar: str | None, word: str | None) -> Resource:
    if dollar and not word:
        return Resource.COST
    singular = (word or "").lower().replace("_", " ").removesuffix("s")
    if singular not in _RESOURCE_WORDS or (dollar and _RESOURCE_WORDS[singular] is not Resource.COST):
        _refuse(text, "count requests, tokens, input tokens, output tokens, dollars ('$5/day') or concurrent")
    return _RESOURCE_WORDS[singular]


def _period_word(text: str, found: re.Match[str]) -> float | str:
    word = found["period"].lower()
    word = _PERIOD_WORDS.get(word, word.removesuffix("s"))
    if word not in PERIOD_SECONDS:
        _refuse(text, f"the time is one of {', '.join(PERIOD_SECONDS)}, or a number of them ('/30 seconds')")
    return word if found["every"] is None else float(found["every"]) * PERIOD_SECONDS[word]


def _refuse(text: object, fix: str) -> NoReturn:
    raise ConfigError(f"limit is {text!r}: {fix}.")
