"""Minutes and gigabytes of a first installation: a fresh clone of this folder, `make install`, what lies there then.

    python -m benchmarks.results.footprint [--here] [--json]

Only what is committed is cloned. Packages come from wherever pip and npm are set to look, so the time is the network's
too. `--here` measures the folders of this checkout and installs nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
FOLDERS: Final = (".venv", ".tools")


def measure(root: Path) -> dict[str, float]:
    """Gigabytes (10^9 bytes) per installed folder."""
    return {name: round(_bytes(root / name) / 1e9, 2) for name in FOLDERS}


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.resolve().rglob("*") if path.is_file() and not path.is_symlink())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--here", action="store_true", help="measure this checkout's folders; install nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    found: dict[str, Any] = {"install_s": None}
    if options.here:
        found["gigabytes"] = measure(ROOT)
    else:
        with tempfile.TemporaryDirectory() as folder:
            clone = Path(folder) / "opportune"
            subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", str(clone)], check=True)
            begun = time.monotonic()
            subprocess.run(["make", "install"], cwd=clone, check=True, stdout=sys.stderr)
            found["install_s"] = round(time.monotonic() - begun)
            found["gigabytes"] = measure(clone)
    if options.json:
        print(json.dumps(found))
        return
    print(f"make install: {found['install_s'] or 'not measured'} s")
    for name, size in found["gigabytes"].items():
        print(f"{name:<8} {size:.2f} GB")


if __name__ == "__main__":
    main()
