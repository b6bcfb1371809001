"""What users make shows itself as they would write it, and nothing that is as it always is."""

from __future__ import annotations

from typing import Any

import pytest

from agent_rate_limiter import Budget, Estimate, Limit, Price, Resource, Scope, Usage

WRITTEN = [
    "Usage()",
    "Usage(input_tokens=10, output_tokens=5)",
    "Usage(requests=0, cost=0.5, exact=False, service_tier='batch')",
    "Estimate()",
    "Estimate(input_tokens=10, max_output_tokens=400, exact=False)",
    "Scope()",
    "Scope(agent='each', run='42')",
    "Price(input_per_1m=1, output_per_1m=2)",
    "Price(input_per_1m=1, output_per_1m=2, cached_input_per_1m=0.5, per_request=0.01)",
    "Price(input_per_1m=1, output_per_1m=2, tiers={1000: Price(input_per_1m=2, output_per_1m=4)})",
    "Budget(limit=5)",
    "Budget(limit=5, per='total', scope=Scope(run='each'), action='warn', thresholds=(0.5, 0.9))",
    "Limit(resource='requests', amount=5, per='minute')",
    "Limit(resource='tokens', amount=5, per='day', burst=2, counts='max_tokens', name='mine')",
    "Limit(resource='cost', amount=5, per='day', strategy='sliding_window', key='k')",
    "Limit(resource='concurrency', amount=5, scope=Scope(agent='each'))",
]
NAMES: dict[str, Any] = {each.__name__: each for each in (Budget, Estimate, Limit, Price, Resource, Scope, Usage)}


@pytest.mark.parametrize("written", WRITTEN)
def test_it_shows_itself_as_it_is_written(written: str) -> None:
    made = eval(written, NAMES)  # noqa: S307 - what is written above
    assert repr(made) == written
    assert eval(repr(made), NAMES) == made  # noqa: S307
