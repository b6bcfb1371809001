"""`SimulatedProvider`: a whole LLM provider on loopback, with real limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.testing.simulated.faults import Fault, Planned
from agent_rate_limiter.testing.simulated.options import Dialect, ModelOptions
from agent_rate_limiter.testing.simulated.organization import Organization
from agent_rate_limiter.testing.simulated.reports import Report, RequestRecord
from agent_rate_limiter.testing.simulated.simulation import WIRES, Simulation
from agent_rate_limiter.testing.simulated.timeline import Timeline
from agent_rate_limiter.testing.simulated.wires import Moment

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

try:
    from aiohttp import web

    from agent_rate_limiter.testing.simulated.handlers import Handlers
except ImportError as missing:  # pragma: no cover - the import check without extras runs it
    raise ImportError("SimulatedProvider needs aiohttp: pip install 'agent-rate-limiter[testing]'") from missing

T = TypeVar("T")
_OPENAI: tuple[Dialect | None, ...] = ("openai", "azure", "groq")
INFINITE = float("inf")


class SimulatedProvider:
    """A real HTTP server on loopback that answers, limits and fails as LLM providers do.

    It speaks OpenAI chat completions, Responses and embeddings, Anthropic messages and Gemini
    generateContent, streamed too, with each provider's headers and errors (provider docs, Nov 2026). The same
    requests under the same seed get the same answers, whatever the timing. It keeps its own account of what
    was used, apart from the limiter's engine, and so can judge it::

        with SimulatedProvider({"gpt-4": {"rpm": 500, "tpm": 10_000}}, speed=60) as provider:
            client = OpenAI(base_url=provider.openai_url, api_key="any")
            ...
            print(provider.report()["gpt-4"].used_share)

    Tokens are counted by one rule: four characters of text are one token, rounded up over all the text of a
    request (see `tokens`).

    Args:
        models: a model's name → its options (`ModelOptions`): limits, how they are enforced, what answers
            look like. None serves any model without limits; otherwise a model that is not listed is a 404.
        default: options for models that are not listed, which then exist.
        account: limits that all models share, and how they are enforced.
        dialect: who answers on the OpenAI routes: `openai`, `azure` or `groq`. Anthropic's and Gemini's
            routes are always theirs; unless this is given, `/openai/v1` is Groq's and
            `/openai/deployments/…` Azure's.
        seed: changes all answers.
        speed: simulated seconds per real second: with 60 a minute passes in one second. Limits, latencies and
            outages go by simulated time, what is told to clients (Retry-After, resets) by theirs. The amounts in
            quota headers mean a simulated minute; who learns limits from them wants `headers="none"` then.
        clock: the client's time in seconds, instead of the machine's: then nothing moves until it does.
        separate_keys: each API key is an account of its own, with limits of its own.
        host, port: where to listen; 0 is any free port.
        options: for every model; its own entry goes before.

    Raises:
        ConfigError: an option that does not exist or makes no sense.
    """

    def __init__(
        self,
        models: Mapping[str, ModelOptions] | None = None,
        *,
        default: ModelOptions | None = None,
        account: ModelOptions | None = None,
        dialect: Dialect | None = None,
        seed: int = 0,
        speed: float = 1.0,
        clock: Callable[[], float] | None = None,
        separate_keys: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        **options: Unpack[ModelOptions],
    ) -> None:
        if dialect is not None and dialect not in WIRES:
            raise ConfigError(f"dialect={dialect!r} is none of {', '.join(WIRES)}.")
        if not 0 < speed < INFINITE:
            raise ConfigError(f"speed={speed!r} must be above 0: simulated seconds per real second.")

        def organization() -> Organization:
            return Organization(models, default, account, options, separate_keys=separate_keys)

        timeline = Timeline(clock, speed)
        self._desk = _Desk(Simulation(organization, seed, timeline.moment().at), timeline, dialect)
        self._listen = (host, port)
        self._thread: _ServerThread | None = None

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    async def __aenter__(self) -> Self:
        """Start, without holding up the loop."""
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *_: object) -> None:
        """Stop, without holding up the loop."""
        await asyncio.to_thread(self.stop)

    def start(self) -> Self:
        """Listen, on a thread of its own; the first time, simulated time starts now.

        Raises:
            OSError: the port is taken.
        """
        if self._thread is None:
            self._desk.within(lambda sim, moment: sim.begin(moment.at))
            self._thread = _ServerThread(Handlers(self._desk).application, *self._listen)
        return self

    def stop(self) -> None:
        """Close every connection; the report stays."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()

    @property
    def url(self) -> str:
        """Where it listens, such as `http://127.0.0.1:49152`."""
        if self._thread is None:
            raise ConfigError("The simulated provider is not running: use `with SimulatedProvider(...) as provider:`.")
        return self._thread.url

    @property
    def openai_url(self) -> str:
        """`base_url` for OpenAI's SDK and those like it."""
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """`base_url` for Anthropic's SDK."""
        return self.url

    @property
    def gemini_url(self) -> str:
        """`http_options={"base_url": ...}` for google-genai."""
        return self.url

    @property
    def requests(self) -> list[RequestRecord]:
        """The latest 100,000 requests that are over, by arrival."""
        log = self._desk.within(lambda sim, _: list(sim.log))
        return sorted(log, key=lambda record: record.at)

    def report(self) -> Report:
        """Exact sums of all requests that are over, and how much of the limits was used."""
        return self._desk.within(lambda sim, moment: sim.report(moment))

    def reset(self) -> None:
        """As if just started: limits full and as configured, books empty, faults and changes to come gone."""
        self._desk.within(lambda sim, moment: sim.reset(moment.at))

    def set_limits(self, model: str | None, *, at: float | None = None, **limits: int) -> None:
        """Change limits while it runs, e.g. `set_limits("gpt-4", tpm=5_000)`; what is used stays used.

        Args:
            model: whose limits; None is the account's, which all models share.
            at: seconds of simulated time after the start; None is now.
            limits: `rpm`, `tpm`, …; 0 is a model that is not in the plan.

        Raises:
            ConfigError: no such model or limit, or a negative amount.
        """
        self._desk.within(lambda sim, moment: sim.set_limits(model, limits, at, moment))

    def inject(
        self,
        fault: Fault | str,
        *,
        times: int | None = None,
        at: float = 0.0,
        lasting: float | None = None,
        probability: float = 1.0,
    ) -> None:
        """Let something go wrong: `inject("slow_down", times=3)`, `inject("overloaded", at=10, lasting=20)`.

        Args:
            fault: a `Fault`, or the kind of a plain one.
            times: how often; once unless said, or without end if `lasting` or a probability is given.
            at: seconds of simulated time after the start from which it happens.
            lasting: for how many of those seconds.
            probability: the share of requests that meet it.

        Raises:
            ConfigError: no such kind, or a probability outside 0 … 1.
        """
        fault = Fault(fault) if isinstance(fault, str) else fault
        if not 0 <= probability <= 1:
            raise ConfigError(f"inject: probability={probability!r} must be from 0 to 1.")
        if times is None and lasting is None and probability == 1:
            times = 1
        until = INFINITE if lasting is None else at + lasting
        planned = Planned(fault, times, at, until, probability)
        self._desk.within(lambda sim, _: sim.planned.append(planned))


class _Desk:
    """The simulation, as the server's thread and the user's share it."""

    def __init__(self, simulation: Simulation, timeline: Timeline, dialect: Dialect | None) -> None:
        self.simulation = simulation
        self.timeline = timeline
        self._dialect = dialect
        self._lock = threading.Lock()

    def within(self, step: Callable[[Simulation, Moment], T]) -> T:
        """Run a step on the simulation, now, and nobody else's meanwhile."""
        with self._lock:
            return step(self.simulation, self.timeline.moment())

    def dialect_of(self, natural: Dialect) -> Dialect:
        """Who answers on a route that is `natural`ly this one's."""
        given = self._dialect
        return given if given is not None and given in _OPENAI and natural in _OPENAI else natural


class _ServerThread:
    """An HTTP server on a daemon thread with an event loop of its own."""

    def __init__(self, application: Callable[[], web.Application], host: str, port: int) -> None:
        self._application, self._host, self._port = application, host, port
        self._loop = asyncio.new_event_loop()
        self._done = asyncio.Event()
        started: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="simulated-provider", daemon=True)
        self._thread.start()
        self.url = started.result()

    def close(self) -> None:
        """Stop serving, and wait until all is closed."""
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def _run(self, started: Future[str]) -> None:
        try:
            self._loop.run_until_complete(self._serve(started))
        except BaseException as failure:
            if started.done():
                raise
            started.set_exception(failure)  # told to whoever starts it
        finally:
            self._loop.close()

    async def _serve(self, started: Future[str]) -> None:
        runner = web.AppRunner(self._application(), access_log=None, handle_signals=False)
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._port, backlog=4096)
        try:
            await site.start()
            port = cast("tuple[Any, ...]", runner.addresses[0])[1]
            started.set_result(f"http://{self._host}:{port}")
            await self._done.wait()
            await site.stop()
            await _cancel_all()  # aiohttp would wait for calls in flight
        finally:
            await runner.cleanup()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {cast("asyncio.Task[None]", asyncio.current_task())}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def serve_forever(
    provider: SimulatedProvider, *, on_start: Callable[[SimulatedProvider], object] | None = None
) -> Report:
    """Serve until interrupted (Ctrl-C), for the command line; prints nothing.

    Args:
        provider: configured, not started.
        on_start: called once it listens, with the provider, whose `url` is then known.

    Returns:
        The report of the whole run.
    """
    with provider:
        if on_start is not None:
            on_start(provider)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
        return provider.report()
