"""Processes of a run: supervisor, orphan cleanup, latency proxy, Prometheus, training containers."""
