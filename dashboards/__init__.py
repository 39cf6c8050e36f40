"""Grafana dashboards and Prometheus rules, built from code: `python -m dashboards.build`."""
