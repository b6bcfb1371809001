"""How providers count tokens against their limits, where that is not what was used."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent_rate_limiter.limits import Resource

FREE_READS: Mapping[str, frozenset[Resource]] = {
    "anthropic": frozenset({Resource.INPUT_TOKENS}),
    "groq": frozenset({Resource.INPUT_TOKENS, Resource.TOKENS}),
}
"""Kind of provider → its limits on which input that was read from a cache does not count (their pages on rate limits,
October and November 2026). Other providers count it."""

_RECENT = 5
_SLOWER = re.compile(r"claude-(?:v|instant|2|3-(?:haiku|sonnet|opus|5))")


def burndown(model: str) -> int:
    """Return how many tokens of Bedrock's quotas an output token takes: 5 of Claude 3.7 and newer, else 1.

    A call takes its input and `max_tokens` when it is admitted; when it has ended, its input without what was read
    from the cache, and its output times this (AWS, "How tokens are counted in Amazon Bedrock", November 2026).

    Args:
        model: the model's or the inference profile's id; an ARN of a profile of one's own does not tell.
    """
    return _RECENT if "claude-" in model and not _SLOWER.search(model) else 1
