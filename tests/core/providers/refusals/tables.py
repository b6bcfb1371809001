"""Refusals as providers send them, from their documentation and from captures, and what each one means."""

from __future__ import annotations

from tests.core.providers.refusals import anthropic, cloud, openai, others

CASES = [*openai.CASES, *anthropic.CASES, *cloud.CASES, *others.CASES]
