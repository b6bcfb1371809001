"""The provider as a whole: its life, its models, its books and its time."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from typing import Any

import aiohttp
import httpx
import pytest

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.testing import SimulatedProvider as Exported
from agent_rate_limiter.testing.simulated import (
    Fault,
    ModelReport,
    SimulatedProvider,
    serve_forever,
)
from tests.core.testing.simulated import NOW, Clock, post, text

# ---------------------------------------------------------------- life


def test_it_is_what_the_testing_package_exports() -> None:
    assert Exported is SimulatedProvider


def test_it_starts_stops_and_keeps_its_report() -> None:
    provider = SimulatedProvider()
    with pytest.raises(ConfigError, match="not running"):
        _ = provider.url
    with provider:
        assert provider.start() is provider  # again is no harm
        assert post(provider).status_code == 200
        url = provider.url
    provider.stop()
    assert provider.report().completed == 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    with provider:
        assert post(provider).status_code == 200


def test_it_works_inside_an_event_loop() -> None:
    async def main() -> int:
        async with SimulatedProvider() as provider, aiohttp.ClientSession() as session:
            body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
            async with session.post(f"{provider.openai_url}/chat/completions", json=body) as answer:
                return answer.status

    assert asyncio.run(main()) == 200


def test_a_port_that_is_taken_is_an_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="address already in use"):
        SimulatedProvider(port=taken.getsockname()[1]).start()


def test_stopping_does_not_wait_for_calls_in_flight() -> None:
    begun = time.monotonic()
    with SimulatedProvider(latency=3600) as provider, ThreadPoolExecutor() as pool:
        waiting = pool.submit(post, provider)
        while not provider.report().models:
            time.sleep(0.001)
        provider.stop()
        with pytest.raises(httpx.HTTPError):
            waiting.result()
    assert time.monotonic() - begun < 5
    assert provider.requests[0].outcome == "failed"


def test_as_a_command_it_serves_until_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[int] = []

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    def on_start(provider: SimulatedProvider) -> None:
        answers.append(post(provider).status_code)
        monkeypatch.setattr(threading.Event, "wait", interrupt)

    report = serve_forever(SimulatedProvider(rpm=5), on_start=on_start)
    monkeypatch.undo()
    assert answers == [200]
    assert report["m"].limits["rpm"].used == 1


def test_a_thousand_requests_a_second_are_no_trouble() -> None:
    async def main(provider: SimulatedProvider) -> float:
        body = {"model": "m", "messages": [{"role": "user", "content": "x" * 400}]}
        gate = asyncio.Semaphore(50)

        async def one(session: aiohttp.ClientSession) -> None:
            async with gate, session.post(f"{provider.openai_url}/chat/completions", json=body) as answer:
                await answer.read()

        async with aiohttp.ClientSession() as session:
            begun = time.process_time()
            await asyncio.gather(*(one(session) for _ in range(1_000)))
            return time.process_time() - begun

    with SimulatedProvider(rpm=10**9, tpm=10**9) as provider:
        seconds = asyncio.run(main(provider))
        assert provider.report().completed == 1_000
    assert seconds < 5  # of processor time, client included; about 0.7 on a quiet machine


# ---------------------------------------------------------------- models


def test_models_that_are_not_listed_exist_only_by_default() -> None:
    with SimulatedProvider({"m": {}}) as provider:
        assert post(provider, model="other").status_code == 404
        assert provider.report()["other"].failed == 1
    with SimulatedProvider({"m": {}}, default={"rpm": 1}) as provider:
        assert [post(provider, model="other").status_code for _ in range(2)] == [200, 429]
        assert [post(provider, model="m").status_code for _ in range(2)] == [200, 200]
    with SimulatedProvider(rpm=1) as provider:
        assert [post(provider, model=model).status_code for model in "aab"] == [200, 429, 200]


def test_models_of_a_pool_share_its_limits() -> None:
    with SimulatedProvider({"a": {"rpm": 2, "pool": "p"}, "b": {"pool": "p"}, "c": {"rpm": 1}}) as provider:
        assert [post(provider, model=model).status_code for model in "ababc"] == [200, 200, 429, 429, 200]
        assert provider.report()["b"].limits["rpm"].used == 2
        provider.set_limits("b", rpm=3)
        assert post(provider, model="a").status_code == 200


def test_all_models_share_the_accounts_limits() -> None:
    with SimulatedProvider({"a": {}, "b": {"rpm": 2}}, account={"rpm": 3}, clock=lambda: NOW) as provider:
        assert [post(provider, model=model).status_code for model in "abaab"] == [200, 200, 200, 429, 429]
        assert post(provider, model="a").headers["x-ratelimit-limit-requests"] == "3"
        report = provider.report()
    assert (report.account["rpm"].used, report.account["rpm"].allowed) == (3, 3)
    assert report.used_share == 1


def test_each_key_may_be_an_account_of_its_own() -> None:
    with SimulatedProvider({"m": {"rpm": 1}}, separate_keys=True, clock=lambda: NOW) as provider:
        assert [post(provider, key=key).status_code for key in ("k1", "k2", "k1")] == [200, 200, 429]
        assert [request.account for request in provider.requests] == ["1", "2", "1"]
        limit = provider.report()["m"].limits["rpm"]
    assert (limit.used, limit.allowed) == (2, 2)


# ---------------------------------------------------------------- books


def test_the_books_are_exact() -> None:
    clock = Clock()
    models: Any = {"m": {"rpm": 60, "tpm": 1_000, "output_tokens": 30, "cached_tokens": 2, "prices": (2.5, 10)}}
    with SimulatedProvider(models, clock=clock, dialect="groq") as provider:
        post(provider, "x" * 400)  # 100 tokens, and 30 out
        clock.now += 30
        post(provider, "x" * 400, max_tokens=10)
        post(provider, "x" * 8_000)
        provider.inject("server_error")
        post(provider)
        report, requests = provider.report(), provider.requests
    assert (report.received, report.admitted, report.completed, report.refused, report.failed) == (4, 2, 2, 1, 1)
    assert (report.input_tokens, report.output_tokens, report.cached_tokens) == (200, 40, 4)
    assert report.dollars == (200 * 2.5 + 40 * 10) / 1e6
    assert report.span == 30
    rpm, tpm = report["m"].limits["rpm"], report["m"].limits["tpm"]
    assert (rpm.used, rpm.allowed) == (4, 90)  # a refused and a failed request count
    assert (tpm.used, tpm.allowed) == (236, 1_500)  # what was read from the cache does not
    assert report["m"].allowed == {"rpm": 90, "tpm": 1_500}
    assert report["m"].used_share == report.used_share == tpm.share == 236 / 1_500
    assert [request.at for request in requests] == [0, 30, 30, 30]
    assert [request.status for request in requests] == [200, 200, 413, 500]
    assert [request.outcome for request in requests] == ["completed", "completed", "refused", "failed"]
    assert [request.fault for request in requests] == [None, None, None, "server_error"]
    assert [request.dollars for request in requests] == [0.00055, 0.00035, 0, 0]
    assert report["never"] == ModelReport()
    with pytest.raises(FrozenInstanceError):
        report.received = 5  # type: ignore[misc]


def test_prices_may_tell_the_cache_apart() -> None:
    prices = {"input": 3.0, "output": 15.0, "cached_input": 0.3}
    with SimulatedProvider(prices=prices, cached_tokens=1, output_tokens=4) as provider:
        post(provider, "hello")  # 2 tokens in
        assert provider.report().dollars == pytest.approx((3 + 0.3 + 60) / 1e6, rel=1e-12)


def test_calls_in_flight_are_counted_at_their_peak() -> None:
    with SimulatedProvider(concurrency=5, latency=0.05) as provider, ThreadPoolExecutor(8) as pool:
        statuses = [answer.status_code for answer in pool.map(lambda _: post(provider), range(8))]
        limit = provider.report()["m"].limits["concurrency"]
    assert statuses.count(200) >= 5
    assert limit.used <= limit.allowed == 5
    assert provider.report().used_share == 0  # a peak is no rate


def test_the_log_holds_no_secret() -> None:
    with SimulatedProvider(separate_keys=True) as provider:
        body = {"model": "m", "max_tokens": 3, "messages": [{"role": "user", "content": "x"}]}
        with httpx.Client(verify=False) as http:  # noqa: S501
            headers = {"x-api-key": "sk-secret", "cookie": "sk-secret", "user-agent": "me"}
            http.post(f"{provider.anthropic_url}/v1/messages", json=body, headers=headers)
            http.post(
                f"{provider.gemini_url}/v1beta/models/g:generateContent",
                json={"contents": [{"parts": [{"text": "x"}]}]},
                headers={"x-goog-api-key": "sk-secret"},
            )
        post(provider)
        assert [request.outcome for request in provider.requests] == ["completed"] * 3
        assert provider.requests[0].headers["user-agent"] == "me"
        assert "sk-secret" not in repr(provider.requests) + repr(vars(provider._desk.simulation.organization))


def test_reset_fills_limits_and_empties_books() -> None:
    with SimulatedProvider({"m": {"rpm": 1}}) as provider:
        provider.set_limits("m", rpm=2)
        assert [post(provider).status_code for _ in range(3)] == [200, 200, 429]
        with SimulatedProvider() as other:
            first = text(post(other))
        provider.reset()
        assert provider.report().received == 0
        assert provider.requests == []
        answers = [post(provider) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]  # as configured, not as it was set
    assert text(answers[0]) == first


def test_a_call_that_began_before_a_reset_is_not_in_the_books_after_it() -> None:
    clock = Clock()
    with SimulatedProvider(rpm=5, latency=60, clock=clock) as provider, ThreadPoolExecutor() as pool:
        waiting = pool.submit(post, provider)
        while not provider.report().models:
            time.sleep(0.001)
        clock.now += 1
        provider.reset()
        clock.now += 60
        assert waiting.result().status_code == 200
        assert provider.report().received == 0


def test_limits_change_now_or_at_a_time() -> None:
    clock = Clock()
    with SimulatedProvider({"m": {"tpm": 100}}, clock=clock) as provider:
        provider.set_limits("m", tpm=10, at=60)
        provider.set_limits("m", tpm=1_000, rpm=7)
        provider.set_limits(None, rpd=50)
        assert post(provider).headers["x-ratelimit-limit-tokens"] == "1000"
        clock.now += 60
        headers = post(provider).headers
        assert (headers["x-ratelimit-limit-tokens"], headers["x-ratelimit-limit-requests"]) == ("10", "7")
        assert provider.report().account["rpd"].used == 2
        provider.set_limits("m", tpm=0)
        assert post(provider).status_code == 429
        with pytest.raises(ConfigError, match="no model 'x'"):
            provider.set_limits("x", rpm=1)
        with pytest.raises(ConfigError, match="no limit 'tmp'"):
            provider.set_limits("m", tmp=1)


# ---------------------------------------------------------------- time


def test_with_speed_a_minute_passes_in_a_second_and_clients_are_told_so() -> None:
    with SimulatedProvider({"m": {"rpm": 1}}, speed=2_000) as provider:
        assert post(provider).status_code == 200
        refused = post(provider)
        wait = float(refused.headers["retry-after"])
        assert wait <= 0.03  # a minute, 2,000 times as fast
        assert float(refused.headers["retry-after-ms"]) <= 30
        assert refused.headers["x-ratelimit-reset-requests"].endswith("ms")
        time.sleep(wait)
        assert post(provider).status_code == 200
        assert provider.requests[2].at - provider.requests[0].at >= 60


def test_latency_and_generation_take_simulated_time() -> None:
    with SimulatedProvider(latency=2.0, output_tokens=50, tokens_per_second=25, speed=100) as provider:
        post(provider)
        assert 4 <= provider.requests[0].seconds < 20


def test_on_a_clock_moved_by_hand_calls_take_as_long_as_it_says() -> None:
    clock = Clock()
    with SimulatedProvider(latency=3600, clock=clock) as provider, ThreadPoolExecutor() as pool:
        waiting = pool.submit(post, provider)
        while not provider.report().models:
            time.sleep(0.001)
        clock.now += 3599
        time.sleep(0.02)
        assert not waiting.done()
        clock.now += 1
        assert waiting.result().headers["date"] == "Mon, 23 Nov 2026 23:00:00 GMT"
        assert provider.requests[0].seconds == 3600


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"speed": 0}, "speed=0 must be above 0"),
        ({"dialect": "gpt"}, "dialect='gpt' is none of openai, azure, groq"),
        ({"models": {"m": {"tpmm": 1}}}, r"models\['m'\]: no option 'tpmm'; did you mean 'tpm'"),
        ({"default": {"rpm": -1}}, "default: rpm=-1"),
        ({"account": {"rpm": "5"}}, "account: rpm='5'"),
        ({"rpmm": 5}, "no option 'rpmm'"),
    ],
)
def test_nonsense_is_refused_at_once(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        SimulatedProvider(**options)


def test_faults_and_refusals_meet_without_harm() -> None:
    """A fault that needs an admitted call does not happen to a refused one."""
    with SimulatedProvider({"m": {"rpm": 1}}) as provider:
        post(provider)
        provider.inject(Fault("reset_after_headers"))
        assert post(provider).status_code == 429
        assert provider.requests[1].fault is None
