"""Which engine a store needs: one for a process's own memory, another for a store that many processes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, cast
from weakref import finalize

from agent_rate_limiter.calls.life import Calls
from agent_rate_limiter.checks import check_clock, check_lease_tokens
from agent_rate_limiter.clock import SystemClock
from agent_rate_limiter.engine.engine import Engine
from agent_rate_limiter.engine.port import Clock, SharedStore, Store
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.loops import may_block
from agent_rate_limiter.stores import ON_STORE_ERROR, is_near, is_shared, open_store

if TYPE_CHECKING:
    from agent_rate_limiter.engine.shared import SharedEngine


def make_engine(
    store: str | Store | SharedStore,
    clock: Clock | None,
    *,
    lease: int,
    ageing: int,
    bounds: Mapping[int | None, int],
    on_store_error: str,
    lease_tokens: int | None = None,
) -> Engine:
    """Return the engine for a store.

    Args:
        store: where the limits live: a URI, or a store.
        clock: tells the time; the system's, or the store's own, unless given.
        lease: milliseconds after which a reservation that nobody ends is taken for lost.
        ageing: milliseconds after which a priority that was passed over counts as one level more urgent.
        bounds: how many may wait for one limit, by priority; under None all together.
        on_store_error: one of ON_STORE_ERROR.
        lease_tokens: tokens that the process may take of a shared store at once, to serve calls from memory.

    Raises:
        ConfigError: a value makes no sense.
    """
    if clock is not None:
        check_clock(clock)
    if on_store_error not in ON_STORE_ERROR:
        raise ConfigError(f"on_store_error is {on_store_error!r}: it is one of {', '.join(ON_STORE_ERROR)}.")
    if lease_tokens is not None:
        check_lease_tokens(lease_tokens)
    opened = open_store(store)
    if not is_shared(opened):
        if lease_tokens is not None:
            raise ConfigError(
                f"lease_tokens is {lease_tokens!r}, but these limits are not shared, and every call is served from "
                "memory: leave it out, or give store='redis://host:6379/0' or 'sqlite:///agents.db'."
            )
        return Engine(cast("Store", opened), clock or SystemClock(), lease=lease, ageing=ageing, bounds=bounds)
    from agent_rate_limiter.engine.courier_driver import Courier
    from agent_rate_limiter.engine.loss import Loss
    from agent_rate_limiter.stores.known import KnownStore, share_of

    engine = _shared_engine(opened, lease_tokens)(
        opened,
        KnownStore(opened),
        clock or SystemClock(),
        lease=lease,
        ageing=ageing,
        bounds=bounds,
        own_time=clock is None,
        loss=Loss(on_store_error, share_of),
    )
    engine.hire = Courier.maker(engine)
    engine.may_block = may_block
    if not is_near(opened):
        finalize(engine, opened.close).atexit = False  # connections are closed, not just forgotten
    return engine


def _shared_engine(store: SharedStore, lease_tokens: int | None) -> Callable[..., SharedEngine]:
    if lease_tokens is not None:
        from agent_rate_limiter.engine.sliced import SlicedEngine

        return partial(SlicedEngine, lease_tokens=lease_tokens)
    if is_near(store):
        from agent_rate_limiter.engine.near import NearEngine

        return NearEngine
    from agent_rate_limiter.engine.shared import SharedEngine

    return SharedEngine


def calls_for(engine: Engine) -> type[Calls]:
    """Return what takes calls through an engine."""
    if type(engine) is Engine:
        return Calls
    from agent_rate_limiter.engine.near import NearEngine

    if isinstance(engine, NearEngine):
        from agent_rate_limiter.calls.near import NearCalls

        return NearCalls
    from agent_rate_limiter.calls.shared import SharedCalls
    from agent_rate_limiter.engine.shared import SharedEngine

    if type(engine) is SharedEngine:
        return SharedCalls
    from agent_rate_limiter.calls.sliced import SlicedCalls

    return SlicedCalls
