"""How Amazon Bedrock counts tokens against its quotas.

A call takes its input and `max_tokens` when it is admitted; when it has ended, its input without what was read from
the cache, and its output times a burndown rate (AWS, "How tokens are counted in Amazon Bedrock", November 2026).
"""

from __future__ import annotations

import re

_RECENT = 5
_SLOWER = re.compile(r"claude-(?:v|instant|2|3-(?:haiku|sonnet|opus|5))")


def burndown(model: str) -> int:
    """Return how many tokens of the quotas an output token takes: 5 of Claude 3.7 and newer, else 1.

    Args:
        model: the model's or the inference profile's id; an ARN of a profile of one's own does not tell.
    """
    return _RECENT if "claude-" in model and not _SLOWER.search(model) else 1
