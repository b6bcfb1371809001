"""Reports: rows of spend, as a table, data, a file or a picture."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_rate_limiter.costs.cells import cell, exported, iso, text_table
from agent_rate_limiter.costs.quotes import UNPRICED
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.ledger import COLUMNS, Key, Ledger, Sums
from agent_rate_limiter.ledger import Row as Call
from agent_rate_limiter.limits import NANO_PER_DOLLAR

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from matplotlib.axes import Axes

Row = dict[str, object]

PERIODS = ("hour", "day", "week", "month")
_CALL_COLUMNS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "cost",
    "estimate",
    "latency",
    "outcome",
    "attempts",
    "price",
)
_RARE = frozenset(_CALL_COLUMNS[4:9])


@dataclass(frozen=True, repr=False)
class CostReport:
    """Rows of spend, one per group; or single calls.

    Args:
        by: the labels that it is grouped by; the period first, if there is one.
        rows: each with those labels, `requests`, the tokens, and `cost` in dollars; the dearest first, or in the
            order of periods.
        columns: what each row has besides the labels.
        unpriced: requests in it that have no price, and so cost $0 here.
    """

    by: tuple[str, ...]
    rows: tuple[Row, ...]
    columns: tuple[str, ...] = COLUMNS
    unpriced: int = 0

    @property
    def total(self) -> float:
        """Dollars of all rows together."""
        nano = sum(round(float(str(row["cost"])) * NANO_PER_DOLLAR) for row in self.rows)
        return nano / NANO_PER_DOLLAR

    def to_dicts(self) -> list[Row]:
        """Return the rows as plain dictionaries."""
        return [dict(row) for row in self.rows]

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the rows as CSV text with a header, and write it to the file at `path` if one is named.

        A text that a spreadsheet would take for a formula ("=…", "+…", "-…", "@…") gets an apostrophe before it; in
        JSON and pandas all texts are as they were given.
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*self.by, *self.columns])
        writer.writerows([exported(row[name]) for name in (*self.by, *self.columns)] for row in self.rows)
        return _written(out.getvalue(), path)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the rows as a JSON list, and write it to the file at `path` if one is named."""
        return _written(json.dumps(self.to_dicts(), default=iso, ensure_ascii=False, indent=1) + "\n", path)

    def to_pandas(self) -> Any:
        """Return the rows as a pandas DataFrame.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            pandas: Any = import_module("pandas")
        except ImportError:
            raise ImportError("to_pandas() needs pandas: pip install pandas. Or use to_dicts().") from None
        return pandas.DataFrame(self.to_dicts(), columns=[*self.by, *self.columns])

    def plot(self, ax: Axes | None = None, *, top: int = 12) -> Axes:
        """Draw the costs: a bar for each group, or for each period, divided by groups.

        Args:
            ax: the matplotlib axes to draw on; new ones unless given.
            top: groups that are shown; the rest is one more.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from agent_rate_limiter.costs.plot import plot

        return plot(self, ax, top)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        """As a table for a terminal."""
        return self.to_text()

    __repr__ = __str__  # so an interactive session shows it

    def to_text(self, *, total: bool = False) -> str:
        """Return a table for a terminal, with a line for the total if it is wanted and there are several rows."""
        names, texts = self._texts(total=total)
        return "\n".join([*text_table([names, *texts], len(self.by)), *self._notes()])

    def _repr_html_(self) -> str:
        """As a table for a notebook."""
        from agent_rate_limiter.costs.html import html_table

        return html_table(self, *self._texts(total=True), self._notes())

    def _texts(self, *, total: bool) -> tuple[list[str], list[list[str]]]:
        """The head and the cells of a table; kinds of token that no row has are left out."""
        names = [name for name in self.columns if name not in _RARE or any(row[name] for row in self.rows)]
        cells = [[cell(name, row[name]) for name in (*self.by, *names)] for row in self.rows]
        if total and len(self.rows) > 1 and self.by:
            sums = [cell(name, self._sum(name)) if name in COLUMNS else "" for name in names]
            cells.append(["total", *[""] * (len(self.by) - 1), *sums])
        return [*self.by, *names], cells

    def _sum(self, column: str) -> object:
        return self.total if column == "cost" else sum(int(str(row[column])) for row in self.rows)

    def _notes(self) -> list[str]:
        if not self.rows:
            return ["No calls."]
        if not self.unpriced:
            return []
        who = (
            "1 request has no known price and counts"
            if self.unpriced == 1
            else (f"{self.unpriced:,} requests have no known price and count")
        )
        return [f"{who} as $0: give a price, or see report(by=('price', 'model'))."]


# -- making them -----------------------------------------------------------------------------------------------


def make_report(
    ledger: Ledger, by: Sequence[str], span: tuple[int | None, int | None], every: str | None, zone: str
) -> CostReport:
    """Sum up a span of a ledger.

    Raises:
        ConfigError: the labels, the period or the time zone make no sense.
    """
    labels, place = _check_labels(by), _zone(zone)
    if every is None:
        return _grouped(labels, ledger.sums(*span), dated=False)
    return _grouped(labels, ledger.sums(*span, _period(every, place)), dated=True)


def _grouped(labels: tuple[str, ...], parts: Iterable[tuple[str, Key, Sums]], *, dated: bool) -> CostReport:
    groups: dict[tuple[str, ...], Sums] = {}
    names: dict[Key, tuple[str, ...]] = {}
    unpriced = 0
    for period, key, sums in parts:
        group = names.get(key)
        if group is None:
            told = {"provider": key.provider, "model": key.model, "price": key.source, **dict(key.labels)}
            group = names[key] = tuple(told.get(label, "") for label in labels)
        total = groups.setdefault((period, *group), [0] * len(COLUMNS))
        for place, amount in enumerate(sums):
            total[place] += amount
        unpriced += sums[0] if key.source == UNPRICED else 0
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], -item[1][4], item[0]))
    head = ("period", *labels) if dated else labels
    return CostReport(
        head, tuple(_row(head, group[0 if dated else 1 :], sums) for group, sums in ordered), unpriced=unpriced
    )


def _row(head: tuple[str, ...], group: tuple[str, ...], sums: Sums) -> Row:
    row: Row = dict(zip(head, group, strict=True))
    row.update(zip(COLUMNS, sums, strict=True))
    row["cost"] = sums[4] / NANO_PER_DOLLAR
    return row


def make_rows(calls: Sequence[Call]) -> CostReport:
    """Make a report of single calls."""
    unpriced = sum(call.requests for call in calls if call.key.source == UNPRICED)
    head = ("time", "provider", "model", "labels")
    return CostReport(head, tuple(map(_call_row, calls)), _CALL_COLUMNS, unpriced)


def _call_row(call: Call) -> Row:
    row: Row = {
        "time": datetime.fromtimestamp(call.at / 1000, timezone.utc),
        "provider": call.key.provider,
        "model": call.key.model,
        "labels": dict(call.key.labels),
        **{name: getattr(call, name) for name in _CALL_COLUMNS[:-1]},
        "price": call.key.source,
    }
    row.update(cost=call.cost / NANO_PER_DOLLAR, estimate=call.estimate / NANO_PER_DOLLAR, latency=call.latency / 1000)
    return row


def _check_labels(by: Sequence[str]) -> tuple[str, ...]:
    given: tuple[object, ...] = (None,) if isinstance(by, str) or not isinstance(by, Iterable) else tuple(by)
    labels = tuple(dict.fromkeys(label for label in given if isinstance(label, str)))
    if not all(isinstance(label, str) for label in given):
        example = by if isinstance(by, str) else "agent"
        raise ConfigError(f"by is {by!r}: give a sequence of labels, for example ({example!r},).")
    for label in labels:
        if label in COLUMNS:
            raise ConfigError(f"by holds {label!r}: that is a column of every report; name the label differently.")
        if label == "period":
            raise ConfigError("by holds 'period': give every='day' instead; name a label differently.")
    return labels


def _zone(name: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except Exception:  # noqa: BLE001 - it raises many kinds
        raise ConfigError(f"timezone is {name!r}: give an IANA name, such as 'Europe/Berlin'.") from None


def _period(every: str, zone: ZoneInfo) -> Callable[[int], str]:
    """Make the function that names the period of a moment, in epoch milliseconds."""
    if every not in PERIODS:
        raise ConfigError(f"every is {every!r}: give one of {', '.join(PERIODS)}.")

    @cache
    def name(start: int) -> str:
        moment = datetime.fromtimestamp(start / 1000, zone)
        if every == "hour":
            twice = moment.utcoffset() != moment.replace(fold=1 - moment.fold).utcoffset()
            return f"{moment:%Y-%m-%d %H:%M %Z}" if twice else f"{moment:%Y-%m-%d %H:%M}"
        if every == "month":
            return f"{moment:%Y-%m}"
        day = moment - timedelta(days=moment.weekday()) if every == "week" else moment
        return f"{day:%Y-%m-%d}"

    return name


# -- writing them ----------------------------------------------------------------------------------------------


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text
