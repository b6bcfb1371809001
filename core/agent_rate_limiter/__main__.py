"""`python -m agent_rate_limiter`: the same as the command `agent-rate-limiter`."""

from __future__ import annotations

from agent_rate_limiter.cli import main

if __name__ == "__main__":
    main()
