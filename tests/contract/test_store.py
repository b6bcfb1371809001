"""What every store must do. A new store joins by one line in tests/contract/opened.py."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from agent_rate_limiter.admission import Bucket
from agent_rate_limiter.engine.port import Hold, Store
from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.limits import Limit, Resource
from agent_rate_limiter.stores import is_shared, open_store
from tests.contract.direct import Direct
from tests.contract.opened import STORES

NOW = 1_767_225_600_000
RPM = Limit(Resource.REQUESTS, 2, "minute")
TPM = Limit(Resource.TOKENS, 100, "minute")
SLOTS = Limit(Resource.CONCURRENCY, 1)
BUDGET = Limit(Resource.COST, 1.0, "day")
SLIDING = Limit(Resource.TOKENS, 100, "minute", strategy="sliding_window")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    found = open_store(STORES[request.param](tmp_path))
    if is_shared(found):
        yield Direct(found)
        found.close()
    else:
        yield cast("Store", found)


def bucket(store: Store, limit: Limit, key: str = "") -> Bucket:
    return store.bucket(key or limit.name, limit, "", NOW)


def reserved(store: Store, hold: Hold, now: int = NOW) -> Hold:
    assert store.reserve(hold, now) is None
    hold.taken_at = now
    return hold


def available(of: Bucket, now: int = NOW) -> int:
    return of.strategy.available(of.state, now)


def test_a_key_names_one_bucket(store: Store) -> None:
    first = bucket(store, RPM)
    assert bucket(store, RPM) is first
    assert bucket(store, RPM, "other") is not first
    assert list(store.buckets()) == [first]


def test_a_bucket_that_nobody_refers_to_is_forgotten(store: Store) -> None:
    kept = bucket(store, RPM, "kept")
    bucket(store, RPM, "dropped")
    gc.collect()
    assert list(store.buckets()) == [kept]


def test_all_or_nothing(store: Store) -> None:
    rpm, tpm = bucket(store, RPM), bucket(store, TPM)
    reserved(store, Hold((rpm, tpm), (1, 60)))
    refusal = store.reserve(Hold((rpm, tpm), (1, 60)), NOW)
    assert refusal is not None
    assert (refusal.bucket, refusal.requested, refusal.available, refusal.wait) == (tpm, 60, 40, 12_000)
    assert (available(rpm), available(tpm)) == (1, 40)


def test_the_limit_that_frees_last_binds(store: Store) -> None:
    rpm, tpm = bucket(store, RPM), bucket(store, TPM)
    reserved(store, Hold((rpm, tpm), (2, 100)))
    refusal = store.reserve(Hold((rpm, tpm), (1, 10)), NOW)
    assert refusal is not None
    assert (refusal.bucket, refusal.wait) == (rpm, 30_000)
    assert store.refusal(Hold((rpm, tpm), (1, 10)), NOW) == refusal
    assert store.refusal(Hold((rpm, tpm), (1, 10)), NOW + 30_000) is None


def test_a_limit_that_is_not_drawn_on_does_not_bind(store: Store) -> None:
    rpm, tpm = bucket(store, RPM), bucket(store, TPM)
    reserved(store, Hold((rpm, tpm), (1, 100)))
    assert store.reserve(Hold((rpm, tpm), (1, 0)), NOW) is None


@pytest.mark.parametrize(("limit", "unit"), [(TPM, 1), (SLIDING, 1), (BUDGET, 10**7)])
@pytest.mark.parametrize(("used", "left"), [(0, 100), (30, 70), (60, 40), (130, -30)])
def test_settling_replaces_what_was_taken(store: Store, limit: Limit, unit: int, used: int, left: int) -> None:
    of = bucket(store, limit)
    hold = reserved(store, Hold((of,), (60 * unit,)))
    store.settle(hold, [used * unit], NOW)
    assert available(of) == left * unit


def test_slots_come_back(store: Store) -> None:
    slots = bucket(store, SLOTS)
    hold = reserved(store, Hold((slots,), (1,)))
    refusal = store.reserve(Hold((slots,), (1,)), NOW)
    assert refusal is not None
    assert (refusal.wait, refusal.may_free, refusal.never) == (None, True, False)
    store.settle(hold, hold.nothing, NOW)
    assert available(slots) == 1


def test_a_late_correction_leaves_slots_alone(store: Store) -> None:
    slots, tpm, budget = bucket(store, SLOTS), bucket(store, TPM), bucket(store, BUDGET)
    hold = reserved(store, Hold((slots, tpm, budget), (1, 60, 6 * 10**8)))
    store.settle(hold, hold.amounts, NOW)
    store.correct(hold, [0, -20, -(10**8)], NOW)
    assert (available(slots), available(tpm), available(budget)) == (1, 60, 5 * 10**8)


def test_larger_than_the_limit_never_fits(store: Store) -> None:
    tpm, rpm = bucket(store, TPM), bucket(store, RPM)
    reserved(store, Hold((rpm,), (2,)))
    refusal = store.reserve(Hold((rpm, tpm), (1, 101)), NOW)
    assert refusal is not None
    assert (refusal.bucket, refusal.never) == (tpm, True)


def test_an_unknown_store_is_refused() -> None:
    with pytest.raises(ConfigError, match="store is 'mongodb://…'"):
        open_store("mongodb://x")


def test_texts_are_remembered(store: Store) -> None:
    assert store.recall("estimates") is None
    store.remember("estimates", "{}")
    store.remember("estimates", '{"é": 1}')
    assert store.recall("estimates") == '{"é": 1}'


def test_a_key_is_claimed_once_until_its_time(store: Store) -> None:
    assert store.first("alert", NOW + 1_000, NOW)
    assert not store.first("alert", NOW + 2_000, NOW + 999)
    assert store.first("other", NOW + 1_000, NOW)
    assert store.first("alert", NOW + 2_000, NOW + 1_000)
