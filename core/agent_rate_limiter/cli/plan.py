"""`agent-rate-limiter plan`: how would a workload go?"""

from __future__ import annotations

import json
import sys
from typing import Any

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.planning import plan


def show_plan(config: str, workload: str, factor: float, *, plot: str | None, as_json: bool) -> int:
    """Print the plan and return 0, or what is wrong with the configuration or the workload and return 2."""
    try:
        found = plan(config, workload, factor=factor)
        if plot is not None:
            figure: Any = found.plot()
            figure.savefig(plot, dpi=120)
    except (ConfigError, OSError, ValueError) as error:  # the last two: the picture's name
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(found.to_dict(), indent=1) if as_json else found)
    return 0
