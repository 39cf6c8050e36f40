"""Write the Grafana dashboard and the Prometheus rules: `python -m infra.dashboards.build [--check]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infra.dashboards.grafana import dashboard_json
from infra.dashboards.rules import rules_yaml

HERE = Path(__file__).parent


def files() -> dict[Path, str]:
    """Path -> content of everything that is built."""
    return {
        HERE / "grafana" / "opportune.json": dashboard_json(),
        HERE / "prometheus" / "rules.yml": rules_yaml(),
    }


def main() -> None:
    """Write the files, or with --check say which ones are out of date (exit code 1)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file is out of date")
    check = parser.parse_args().check
    stale = [path for path, content in files().items() if not path.exists() or path.read_text() != content]
    for path in stale:
        if check:
            print(
                f"{path.relative_to(HERE.parent)} is out of date; run python -m infra.dashboards.build", file=sys.stderr
            )
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files()[path])
            print(f"wrote {path.relative_to(HERE.parent)}")
    if check and stale:
        sys.exit(1)


if __name__ == "__main__":
    main()
