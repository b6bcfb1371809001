"""The models that a provider serves, and the accounts that share their limits. Pure: methods take `now`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.testing.simulated.accounts import Account, nanoseconds
from agent_rate_limiter.testing.simulated.options import Dialect, ModelConfig, check_limits, configure
from agent_rate_limiter.testing.simulated.reports import LimitReport


class Organization:
    """Models, their limits, and who has used how much of them.

    Args:
        models: by name; None serves any model.
        default: for models that are not listed; without it they do not exist.
        account: limits that all models share.
        options: for every model, listed or not.
        separate_keys: each API key is an account of its own.
    """

    def __init__(
        self,
        models: Mapping[str, Mapping[str, Any]] | None,
        default: Mapping[str, Any] | None,
        account: Mapping[str, Any] | None,
        options: Mapping[str, Any],
        *,
        separate_keys: bool = False,
    ) -> None:
        self._configs = {
            name: configure({**options, **entry}, f"models[{name!r}]") for name, entry in (models or {}).items()
        }
        if models is None and default is None:
            default = {}
        self._default = None if default is None else configure({**options, **default}, "default")
        enforcement = {name: value for name, value in options.items() if name in _ENFORCEMENT}
        self._shared_config = configure({**enforcement, **(account or {})}, "account")
        self._separate_keys = separate_keys
        self._accounts: dict[tuple[str, Dialect, str], Account] = {}
        self._shared: dict[tuple[str, Dialect], Account] = {}
        self._names: dict[bytes, str] = {}

    @property
    def models(self) -> list[str]:
        """The names that are listed."""
        return list(self._configs)

    def config(self, model: str) -> ModelConfig | None:
        """A model's entry; None if there is no such model."""
        return self._configs.get(model, self._default)

    def account_name(self, key: str) -> str:
        """Whose account an API key opens; the key itself is not kept."""
        if not self._separate_keys:
            return "default"
        digest = hashlib.sha256(key.encode()).digest()
        return self._names.setdefault(digest, str(len(self._names) + 1))

    def account(self, name: str, dialect: Dialect, model: str, now: float) -> Account:
        """The limits that hold for this model in this account."""
        pool = self._pool(model)
        if (name, dialect, pool) not in self._accounts:
            if (name, dialect) not in self._shared:
                behaviour = self._shared_config.behaviour(dialect)
                self._shared[name, dialect] = Account(self._shared_config, behaviour, now)
            mates = [mate for mate in self._configs if self._pool(mate) == pool]
            config = self._configs[mates[0]] if mates else self._default or ModelConfig()
            account = Account(config, config.behaviour(dialect), now, self._shared[name, dialect])
            self._accounts[name, dialect, pool] = account
        return self._accounts[name, dialect, pool]

    def set_limits(self, model: str | None, limits: Mapping[str, int], now: float) -> None:
        """Change the limits of a model and its pool, or of the account (None); what is used stays used."""
        if model is None:
            self._shared_config = self._shared_config.with_limits(limits)
            affected = list(self._shared.values())
        else:
            self.check(model, limits)
            pool = self._pool(model)
            for mate in {model, *(name for name in self._configs if self._pool(name) == pool)}:
                self._configs[mate] = (self.config(mate) or ModelConfig()).with_limits(limits)
            affected = [account for (_, _, name), account in self._accounts.items() if name == pool]
        for account in affected:
            account.resize(limits, now)

    def check(self, model: str | None, limits: Mapping[str, int]) -> None:
        """Raise a ConfigError if such a change makes no sense."""
        check_limits(limits, "set_limits")
        if model is not None and self.config(model) is None:
            raise ConfigError(f"set_limits: no model {model!r}; known are {', '.join(self._configs)}.")

    def limits(self, model: str | None) -> dict[str, LimitReport]:
        """The books of a model's limits, or of the account's (None), over all keys."""
        if model is None:
            return _sum(self._shared.values())
        pool = self._pool(model)
        return _sum(account for (_, _, name), account in self._accounts.items() if name == pool)

    def _pool(self, model: str) -> str:
        config = self.config(model)
        return model if config is None or config.pool is None else f"pool {config.pool}"


_ENFORCEMENT = {
    "mode",
    "day",
    "slices",
    "charge",
    "settle",
    "failed_requests_count",
    "cache_reads_count",
    "burndown",
}


def _sum(accounts: Iterable[Account]) -> dict[str, LimitReport]:
    """The limits of some accounts, summed by name."""
    reports: dict[str, LimitReport] = {}
    for account in accounts:
        if account.span is None:
            continue
        start, end = map(nanoseconds, account.span)
        for name, limit, used, allowed in account.books(start, end):
            before = reports.get(name, LimitReport(limit, 0, 0))
            reports[name] = LimitReport(limit, before.used + used, before.allowed + allowed)
    return reports
