"""Grafana dashboards and Prometheus rules, built from code: `python -m infra.dashboards.build`."""
