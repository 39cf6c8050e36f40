"""HTTP client of a serving process's admin routes (load, activate), as both embedded clouds' endpoints use it."""

from __future__ import annotations

import json
import os
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import UnavailableError

ADMIN_HEADER = "X-Opportune-Admin"
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class ServingAdmin:
    """Loads model versions into one serving process and chooses the active one."""

    url: str
    token: str

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> ServingAdmin | None:
        """From OPPORTUNE_LOCAL_SERVE_URL and OPPORTUNE_ADMIN_TOKEN; None when no serving process was named."""
        url = env.get("OPPORTUNE_LOCAL_SERVE_URL", "")
        return cls(url.rstrip("/"), env.get("OPPORTUNE_ADMIN_TOKEN", "")) if url else None

    def load(self, version: str, artifact: Path) -> None:
        """Load `artifact` beside the active version, and wait until it is ready.

        Raises UnavailableError with the process's reason.
        """
        self._send("PUT", f"/models/{version}", {"artifact": str(artifact)})
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            listed = {model["version"]: model for model in self._send("GET", "/models")["models"]}
            found = listed.get(version, {"state": "failed", "reason": "it was unloaded meanwhile"})
            if found["state"] in ("ready", "active"):
                return
            if found["state"] == "failed" or time.monotonic() > deadline:
                reason = found["reason"] or f"it did not load within {TIMEOUT_S:g} s"
                raise UnavailableError(f"model version {version} at {self.url}", reason)
            time.sleep(0.1)

    def activate(self, version: str) -> None:
        """Swap to `version`. Raises UnavailableError with the process's reason."""
        self._send("POST", f"/models/{version}/activate", {})

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body).encode() if body is not None else None,
            method=method,
            headers={"Content-Type": "application/json", ADMIN_HEADER: self.token},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return dict(json.loads(answer.read() or b"{}"))
        except urllib.error.HTTPError as exc:
            reason = exc.read(2000).decode(errors="replace")
            raise UnavailableError(f"serving process {self.url}", f"{method} {path}: {exc.code} {reason}") from exc
        except OSError as exc:
            raise UnavailableError(f"serving process {self.url}", f"{method} {path}: {exc}") from exc


def unpack(tar_path: Path, into: Path) -> Path:
    """Unpack a model.tar.gz, refusing members that would land outside of `into`."""
    into.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar_path) as tar:
        tar.extractall(into, filter="data")
    return into
