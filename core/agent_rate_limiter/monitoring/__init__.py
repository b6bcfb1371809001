"""Watching the limiter: alerts."""
