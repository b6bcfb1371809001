"""Adapters that put agent frameworks and provider SDKs under an `agent_rate_limiter` limiter.

Each module here needs its own extra and imports its framework only when it is used.
`limiter.wrap(x)` finds the right one by itself, through the entry-point group
`agent_rate_limiter.adapters`.
"""
