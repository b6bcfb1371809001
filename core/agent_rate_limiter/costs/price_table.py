"""Prices from the maintained table of genai-prices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from agent_rate_limiter.pricing import Price
from agent_rate_limiter.providers.kinds import known_kind

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice

_PROVIDERS = {"gemini": "google", "vertex": "google", "bedrock": "aws", "xai": "x-ai"}
"""Our name for a kind of provider → the table's, where they differ."""
_FIELDS = {
    "input_per_1m": "input_mtok",
    "output_per_1m": "output_mtok",
    "cached_input_per_1m": "cache_read_mtok",
    "cache_write_per_1m": "cache_write_mtok",
    "cache_write_1h_per_1m": "cache_write_1h_mtok",
    "reasoning_per_1m": "output_reasoning_mtok",
    "input_audio_per_1m": "input_audio_mtok",
    "output_audio_per_1m": "output_audio_mtok",
}
_REQUESTS = "requests_kcount"
_DAY = timedelta(days=1)
_lock = Lock()


class Listed(NamedTuple):
    """A price as the table lists it.

    Args:
        price: what it is now.
        source: the table and its version.
        until: the epoch millisecond at which it may change; None: never in this version.
    """

    price: Price
    source: str
    until: int | None


def load_prices() -> None:
    """Load the table, which takes some 100 ms: where a limiter is made, and not at a call on somebody's event loop."""
    from genai_prices.data_snapshot import get_snapshot

    with _lock:
        get_snapshot()


def listed_price(provider: str, model: str, now: int) -> Listed | None:
    """Look up what a model costs; None when the table does not know.

    What it charges apart from tokens and requests (searches, pages, seconds of audio) is not in the price, and a
    model that charges nothing else counts as unknown.

    Args:
        provider: the kind of provider ("openai", "gemini"), or the table's own name of one.
        model: the model's name, dated or not.
        now: epoch milliseconds: prices change by date, and at some providers by the hour.
    """
    with _lock:  # one thread loads the table; its caches are not made for several
        found = _find(provider, model)
    if found is None:
        return None
    info, own, source = found
    at = datetime.fromtimestamp(now / 1000, timezone.utc)
    price = _priced(info, at, variants=own)
    return None if price is None else Listed(price, source, min(_changes(info, at), default=None))


def _find(provider: str, model: str) -> tuple[ModelInfo, bool, str] | None:
    """A model, whether it is the provider's own entry (and not borrowed from another's), and the table's name."""
    from genai_prices.data_snapshot import get_snapshot

    kind = known_kind(provider)
    name = provider.lower() if kind is None else _PROVIDERS.get(kind, kind)
    snapshot = get_snapshot()
    seller = next((known for known in snapshot.providers if known.id == name), None)
    if seller is None:
        return None
    try:
        info = snapshot.find_provider_model(model, seller, None, None)[1]
    except LookupError:
        return None
    return info, any(info is known for known in seller.models), _source(snapshot)


def _source(snapshot: DataSnapshot) -> str:
    """The table's name and version, as the ledger keeps them; a program may have asked it to update itself."""
    updated = f", updated {snapshot.timestamp:%Y-%m-%d}" if snapshot.from_auto_update else ""
    return f"genai-prices {version('genai-prices')}{updated}"


def _priced(info: ModelInfo, at: datetime, *, variants: bool) -> Price | None:
    usual = _with_tiers(info.get_prices(at))
    if usual is None:
        return None
    service_tiers: dict[str, Price] = {}
    for variant in (info.price_variants or ()) if variants else ():
        name = next(iter(variant.when.values()))
        price = None if name == "default" else _with_tiers(info.get_prices(at, variant.when))
        if price is not None and price != usual:
            service_tiers[name] = price
    return replace(usual, service_tiers=service_tiers) if service_tiers else usual


def _with_tiers(prices: ModelPrice) -> Price | None:
    usual = _at_tokens(prices, 0)
    if usual is None:
        return None
    starts = {tier.start for value in vars(prices).values() for tier in getattr(value, "tiers", ())}
    tiers = {start: _at_tokens(prices, start + 1) for start in starts}
    return replace(usual, tiers={start: tier for start, tier in tiers.items() if tier is not None}) if tiers else usual


def _at_tokens(prices: ModelPrice, input_tokens: int) -> Price | None:
    """The price of a call with so many input tokens; None when it is not charged by tokens or requests."""
    found = {field: _dollars(getattr(prices, key, None), input_tokens) for field, key in _FIELDS.items()}
    per_1000 = _dollars(getattr(prices, _REQUESTS, None), input_tokens)
    if found["input_per_1m"] is None and found["output_per_1m"] is None and per_1000 is None:
        return None
    given: dict[str, Any] = {field: dollars for field, dollars in found.items() if dollars is not None}
    given = {"input_per_1m": 0.0, "output_per_1m": 0.0, **given, "per_request": (per_1000 or 0.0) / 1000}
    return Price(**given)


def _dollars(value: Any, input_tokens: int) -> float | None:
    """One amount: a number, or a base and tiers that begin above so many input tokens."""
    if value is None:
        return None
    for tier in reversed(getattr(value, "tiers", ())):
        if input_tokens > tier.start:
            return float(tier.price)
    return float(getattr(value, "base", value))


def _changes(info: ModelInfo, at: datetime) -> Iterator[int]:
    """When conditions begin or end to hold, after a moment: dates, and times of day."""
    prices = info.prices if isinstance(info.prices, list) else []
    for condition in (*prices, *(info.price_variants or ())):
        constraint = condition.constraint
        start = getattr(constraint, "start_date", None)
        if start is not None:
            yield from _after(datetime(start.year, start.month, start.day, tzinfo=timezone.utc), at)
        for name in ("start_time", "end_time"):
            time = getattr(constraint, name, None)
            if time is not None:
                today = datetime.combine(at.date(), time if time.tzinfo else time.replace(tzinfo=timezone.utc))
                for moment in (today - _DAY, today, today + _DAY):
                    yield from _after(moment, at)


def _after(moment: datetime, at: datetime) -> Iterator[int]:
    if moment > at:
        yield round(moment.timestamp() * 1000)
