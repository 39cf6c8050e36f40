"""Releases in a folder, as the control plane writes them, and who follows them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.artifact import MANIFEST
from shared.contracts import InstanceStatus, Release, ReleasedVersion, decode, encode
from shared.releases import instance_key, model_folder, release_key, released, rolled_back
from training_containers.model.engines.onnx_gpt2 import OnnxEngine
from training_containers.object_store import FolderObjects
from training_containers.serve.follow import Follower
from training_containers.serve.model_registry import Registry
from training_containers.serve.version_cache import VersionCache


class Releases:
    """What the control plane does to one service's store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = FolderObjects(root)
        self.release: Release | None = None

    def upload(self, folder: Path, version: str, *, manifest: bool = True) -> None:
        """Every file as an object, the manifest last."""
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
            self.store.put(model_folder(version) + path.relative_to(folder).as_posix(), path.read_bytes())
        if manifest:
            self.store.put(model_folder(version) + MANIFEST, (folder / MANIFEST).read_bytes())

    def publish(self, version: str) -> None:
        """`version` is stable from now on, what was stable is previous."""
        self.write(released(self.release, "qa", version, 0.0, "test"))

    def roll_back(self) -> str:
        """The previous version is stable again; which one."""
        assert self.release is not None
        before = rolled_back(self.release, 0.0, "test")
        assert before is not None
        self.write(before)
        return before.of("stable") or ""

    def roles(self, **versions: str) -> None:
        """The next revision, with these roles."""
        named = tuple(ReleasedVersion(model_version=v, role=role) for role, v in versions.items())  # type: ignore[arg-type]
        revision = self.release.revision + 1 if self.release else 1
        self.write(Release(service="qa", revision=revision, versions=named, changed_s=0.0))

    def write(self, release: Release) -> None:
        self.release = release
        self.store.put(release_key("qa"), encode(release))

    def status(self, instance: str = "one") -> InstanceStatus:
        return decode(InstanceStatus, self.store.get(instance_key("qa", instance)))


class Following:
    """One process's registry and follower, without HTTP."""

    def __init__(self, releases: Releases, cache: Path, store: Any = None, **options: Any) -> None:
        self.errors: list[str] = []
        self.registry = Registry(OnnxEngine)
        self.cache = VersionCache(cache)
        self.follower = Follower(
            store or releases.store,
            self.registry,
            self.cache,
            service="qa",
            cloud="aws",
            instance="one",
            on_error=self.errors.append,
            **{"every_s": 0.02, "retry_s": 0.1, "status_every_s": 0.5} | options,
        )

    def serves(self, version: str, revision: int | None = None) -> None:
        """Wait until `version` is active under that revision."""
        until(lambda: self.registry.active == version and revision in (None, self.follower.followed.revision))

    def close(self) -> None:
        self.follower.close()
        self.registry.close(5)
        self.cache.close()


def until(true: Callable[[], Any], limit_s: float = 20) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)
