"""The kinds of value that configuration holds: each reads what users write, or says what to write instead.

A reader raises ValueError with the fix alone; what the value is and where it stands is added by the loader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

from pydantic import GetCoreSchemaHandler, TypeAdapter, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from agent_rate_limiter._environment import KEY_REFERENCE, expand
from agent_rate_limiter.alerts.webhook import FORMATS
from agent_rate_limiter.budgets import ACTIONS
from agent_rate_limiter.calls.choice import POLICIES
from agent_rate_limiter.costs.quotes import ON_UNKNOWN
from agent_rate_limiter.limits import COUNTS, PERIOD_SECONDS, STRATEGIES, Limit, Resource, Target
from agent_rate_limiter.retry import BACKOFFS, JITTERS
from agent_rate_limiter.scopes import Scope
from agent_rate_limiter.stores import ON_STORE_ERROR

_MOST = 10**15  # so that whatever is made of a number (milliseconds, nano-dollars) stays exact and finite
_TOO_MUCH = "give a number of at most 1e15"
_NUMBER_TEXT = re.compile(
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d[\d_]*(?:\.\d*)?|\.\d+)"
    r"(?P<power>[eE][+-]?\d{1,4})?\s*(?P<suffix>[kKmMbBgG])?",
    re.ASCII,
)
_SUFFIX = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}


@dataclass(frozen=True)
class Read:
    """Has pydantic read a value by this function alone, without a look into the type that it makes.

    Args:
        function: makes the value, or raises ValueError with the fix.
        written: the type of what users write, for the JSON schema.
    """

    function: Callable[[object], object]
    written: object = Any

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tell pydantic."""
        written = handler.generate_schema(self.written)
        return core_schema.no_info_plain_validator_function(self.function, json_schema_input_schema=written)


def _number(value: object, fix: str) -> float:
    """Read a number, also as the text "1e6", "1_000_000" or "1M"."""
    if isinstance(value, bool):
        raise ValueError(f"{fix} (YAML also reads a bare yes or on as True)")  # noqa: TRY004 - pydantic wants it
    number = _number_in(value) if isinstance(value, str) else value
    if not isinstance(number, (int, float)) or not abs(number) < float("inf"):
        raise ValueError(fix)
    if abs(number) > _MOST:
        raise ValueError(_TOO_MUCH)
    return int(number) if number == int(number) else number


def _number_in(text: str) -> float | None:
    found = _NUMBER_TEXT.fullmatch(text.strip())
    if found is None:
        return None
    digits = found["digits"].replace(",", "").replace("_", "")
    return float(digits + (found["power"] or "")) * _SUFFIX[(found["suffix"] or "").upper()]


def _positive(value: object, fix: str = "give a finite number above 0") -> float:
    number = _number(value, fix)
    if number <= 0:
        raise ValueError(fix)
    return number


def _count(value: object) -> int:
    number = _positive(value)
    if not isinstance(number, int):
        raise ValueError("give a whole number")  # noqa: TRY004 - as above
    return number


def _whole(value: object) -> int:
    fix = "give a whole number of at least 0"
    number = _number(value, fix)
    if not isinstance(number, int) or number < 0:
        raise ValueError(fix)
    return number


def _at_least_0(unit: str) -> Callable[[object], float]:
    fix = f"give {unit}a finite number of at least 0"

    def read(value: object) -> float:
        number = _number(value, fix)
        if number < 0:
            raise ValueError(fix)
        return number

    return read


def _max_queue(value: object) -> int | dict[int, int]:
    if not isinstance(value, Mapping):
        return _whole(value)
    bounds: dict[int, int] = {}
    for priority, most in cast("Mapping[object, object]", value).items():
        number = _number(priority, "its keys are priorities, such as 10")
        if number != int(number) or number < 0:
            raise ValueError("its keys are priorities: whole numbers of at least 0, such as 10")
        bounds[int(number)] = _whole(most)
    return bounds


def _share(value: object) -> float:
    fix = "give a share above 0 and up to 1, such as 0.8"
    number = _number(value, fix)
    if not 0 < number <= 1:
        raise ValueError(fix)
    return number


def _shares(value: object) -> tuple[float, ...]:
    several = _SEVERAL_SHARES.validate_python(value) if isinstance(value, (list, tuple)) else [_share(value)]
    return tuple(sorted(set(several)))


def _period(*words: str) -> Callable[[object], float | str]:
    def read(value: object) -> float | str:
        if isinstance(value, str) and value in words:
            return value
        return _positive(value, f"it is one of {', '.join(words)}, or a number of seconds")

    return read


def _one_of(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"it is one of {', '.join(words)}")
        return value

    return read


def _matching(pattern: str, fix: str) -> Callable[[object], str]:
    wanted = re.compile(pattern, re.ASCII)

    def read(value: object) -> str:
        if not isinstance(value, str) or not wanted.fullmatch(value):
            raise ValueError(fix)
        return value

    return read


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("write it as text, in quotes")  # noqa: TRY004 - as above
    if not value or value != value.strip():
        raise ValueError("write a name, without spaces around it")
    return value


def check_limit_text(text: str) -> None:
    """Refuse a limit's text that cannot be read, or holds numbers beyond reason."""
    try:
        limit = Limit.parse(text)
        largest = max(limit.amount, limit.period_ms or 0)
    except OverflowError:
        largest = float("inf")
    if largest > _MOST:
        raise ValueError(_TOO_MUCH)


def _timezone(value: object) -> str:
    return Limit(Resource.REQUESTS, 1, "day", timezone=_text(value)).timezone


def _base_url(value: object) -> str:
    fix = "write it like 'https://host/path', without a secret: that goes into api_key"
    text = _text(value)
    try:
        parts = urlsplit(text)
        sound = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        sound = False
    if not sound or re.search(r"\s", text):
        raise ValueError(fix)
    return text


def _api_key(value: object) -> str:
    """Check that the environment has the key; what is kept is the reference to it."""
    found = KEY_REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("name an environment variable, as in '${OPENAI_API_KEY}'; the key itself is not written here")
    if not found["optional"] and not expand(f"${{{found['name']}:-}}"):
        raise ValueError(f"the environment variable {found['name']} is not set, or empty: set it")
    return found[0]


def _model_target(value: object) -> str | Target:
    if isinstance(value, Target):
        return value
    if not isinstance(value, str) or not all(part.strip() for part in value.split(":", 1)):
        raise ValueError("write it as 'provider:model', or as 'model' for one of the same provider")
    return value


def _full_target(value: object) -> str:
    return str(Target.parse(value if isinstance(value, Target) else _text(value)))


def _scope(value: object) -> Scope:
    if isinstance(value, Scope):
        return value
    labels = cast("Mapping[object, object]", value) if isinstance(value, Mapping) else {None: None}
    if not all(_is_label(name, label) for name, label in labels.items()):
        raise ValueError("write labels, as in {agent: researcher} or {agent: each}")
    return Scope(**{str(name): str(label) for name, label in labels.items()})


def _is_label(name: object, label: object) -> bool:
    named = isinstance(name, str) and name.isidentifier() and name != "self"
    return named and label != "" and isinstance(label, (str, int)) and not isinstance(label, bool)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("write true or false")  # noqa: TRY004 - as above
    return value


_NUMBER = WithJsonSchema(
    {
        "anyOf": [{"type": "number"}, {"type": "string"}],
        "description": "a number; text such as 1M, 1e6 or ${NAME}",
    }
)
_SHARE = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
_TEXT = WithJsonSchema({"type": "string"})


def _enum(*words: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": list(words)})


def _word_or_seconds(*words: str) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"enum": list(words)}, {"type": "number", "exclusiveMinimum": 0}]})


_WORDS = tuple(PERIOD_SECONDS)
_BUDGET_WORDS = (*_WORDS[1:], "total")
_RATES = tuple(strategy for strategy in STRATEGIES if strategy != "concurrency")
_RESOURCES = tuple(resource.value for resource in Resource)

Count = Annotated[int, Read(_count), _NUMBER]
Positive = Annotated[float, Read(_positive), _NUMBER]
Whole = Annotated[int, Read(_whole), _NUMBER]
AtLeast0 = Annotated[float, Read(_at_least_0("")), _NUMBER]
Dollars = Annotated[float, Read(_at_least_0("dollars as ")), _NUMBER]
Share = Annotated[float, Read(_share), WithJsonSchema(_SHARE)]
_SEVERAL_SHARES = TypeAdapter(list[Share])
Shares = Annotated[
    tuple[float, ...],
    Read(_shares),
    WithJsonSchema({"anyOf": [_SHARE, {"type": "array", "items": _SHARE}]}),
]
LimitPeriod = Annotated[float | str, Read(_period(*_WORDS)), _word_or_seconds(*_WORDS)]
BudgetPeriod = Annotated[float | str, Read(_period(*_BUDGET_WORDS)), _word_or_seconds(*_BUDGET_WORDS)]
ResourceWord = Annotated[str, Read(_one_of(*_RESOURCES)), _enum(*_RESOURCES)]
Strategy = Annotated[str, Read(_one_of(*STRATEGIES)), _enum(*STRATEGIES)]
RateStrategy = Annotated[str, Read(_one_of(*_RATES)), _enum(*_RATES)]
Counts = Annotated[str, Read(_one_of(*COUNTS)), _enum(*COUNTS)]
AlertFormat = Annotated[str, Read(_one_of(*FORMATS)), _enum(*FORMATS)]
Action = Annotated[str, Read(_one_of(*ACTIONS)), _enum(*ACTIONS)]
UnknownPrice = Annotated[str, Read(_one_of(*ON_UNKNOWN)), _enum(*ON_UNKNOWN)]
StoreError = Annotated[str, Read(_one_of(*ON_STORE_ERROR)), _enum(*ON_STORE_ERROR)]
Policy = Annotated[str, Read(_one_of(*POLICIES)), _enum(*POLICIES)]
Seconds = Annotated[float, Read(_at_least_0("seconds as ")), _NUMBER]
Backoff = Annotated[str, Read(_one_of(*BACKOFFS)), _enum(*BACKOFFS)]
Jitter = Annotated[str, Read(_one_of(*JITTERS)), _enum(*JITTERS)]
MaxQueue = Annotated[
    int | dict[int, int],
    Read(_max_queue),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "object", "additionalProperties": {"type": "integer"}}]}),
]
Text = Annotated[str, Read(_text), _TEXT]
Timezone = Annotated[str, Read(_timezone), _TEXT]
BaseUrl = Annotated[str, Read(_base_url), _TEXT]
ApiKey = Annotated[str, Read(_api_key), WithJsonSchema({"type": "string", "pattern": r"^\$\{.*\}$"})]
ModelTarget = Annotated[str | Target, Read(_model_target), _TEXT]
FullTarget = Annotated[str, Read(_full_target), _TEXT]
ScopeLabels = Annotated[
    Scope,
    Read(_scope),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "integer"]}}),
]
Flag = Annotated[bool, Read(_flag), WithJsonSchema({"type": "boolean"})]
ProviderName = Annotated[
    str,
    Read(_matching(r"[\w.-]+", "use letters, digits, '.', '_' and '-' only, as in 'openai'")),
    _TEXT,
]
StoreUri = Annotated[
    str,
    Read(
        _matching(
            r"[a-z][a-z0-9+.-]*://\S*",
            "write it like 'memory://', 'sqlite:///agents.db' or 'redis://host:6379/0'",
        )
    ),
    _TEXT,
]
