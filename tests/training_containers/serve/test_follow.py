"""What a process serves is what the release says; whatever goes wrong, what is loaded goes on serving."""

from __future__ import annotations

import itertools
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.contracts import ModelManifest, decode, encode
from shared.errors import NotFoundError, UnavailableError
from shared.releases import manifest_key, model_folder, release_key, serving
from tests.training_containers.serve.releasing import Following, Releases, until
from training_containers import object_store
from training_containers.model.engines.onnx_gpt2 import OnnxEngine
from training_containers.object_store import FolderObjects
from training_containers.serve import version_cache
from training_containers.serve.app import create_app
from training_containers.serve.memory import Memory
from training_containers.serve.metrics import ServingMetrics, Snapshot
from training_containers.serve.model_registry import VersionNotHereError
from training_containers.serve.scores import RollingScores
from training_containers.serve.service import Service

PROMPTS = ["question: who wrote hamlet? answer:", "the quick", "question: what is it? answer:"]
Start = Callable[..., Following]


@pytest.fixture
def releases(tmp_path: Path, versions: dict[str, Path]) -> Releases:
    """A store with three versions, none released."""
    made = Releases(tmp_path / "store")
    for version, folder in versions.items():
        made.upload(folder, version)
    return made


@pytest.fixture
def start(releases: Releases, tmp_path: Path) -> Iterator[Start]:
    made: list[Following] = []

    def begin(**options: Any) -> Following:
        made.append(Following(releases, tmp_path / "cache", **options))
        made[-1].follower.start()
        return made[-1]

    yield begin
    for one in made:
        one.close()


class _Memory(Memory):
    """As much as the test says."""

    free = 10**12

    def free_bytes(self) -> int:
        return self.free


def _files(following: Following) -> set[str]:
    return {path.name for path in following.cache.folder("x").parent.glob("*")}


def _states(releases: Releases) -> dict[str, str]:
    try:
        return {one.model_version: one.state for one in releases.status().versions}
    except NotFoundError:  # it has told nothing yet
        return {}


# --- releases


def test_a_new_instance_starts_from_the_document_and_tells_what_it_has(releases: Releases, start: Start) -> None:
    releases.publish("m1")
    releases.publish("m2")
    one = start()

    one.serves("m2")
    until(lambda: _states(releases) == {"m2": "active", "m1": "ready"})
    status = releases.status()
    assert (status.instance, status.cloud, status.revision, status.active, status.reason) == ("one", "aws", 2, "m2", "")
    assert serving(releases.release, [status], time.time()) == ("m2", False, "")
    assert not one.registry.judged("m1"), "labels about what was replaced count no more, in a new process too"


def test_what_is_named_no_more_goes_with_its_files_after_its_last_request(releases: Releases, start: Start) -> None:
    releases.publish("m1")
    one = start()
    one.serves("m1")
    with one.registry.lease() as (version, batcher):
        releases.publish("m2")
        releases.publish("m3")
        one.serves("m3")
        until(lambda: one.registry.loaded == {"m2", "m3"})
        until(lambda: _files(one) == {"m2", "m3"})
        assert version == "m1"
        assert batcher.answer(PROMPTS[0], 8, 10).tokens
    assert one.registry.draining == 0
    with pytest.raises(VersionNotHereError), one.registry.lease("m1"):
        pass


def test_a_candidate_is_loaded_beside_the_stable_version_and_answers_by_name(releases: Releases, start: Start) -> None:
    releases.roles(stable="m1", candidate="m2", previous="m3")
    one = start()
    one.serves("m1")

    until(lambda: one.registry.loaded == {"m1", "m2", "m3"})
    assert one.registry.active == "m1"
    with one.registry.lease("m2") as (version, _):
        assert version == "m2"


def test_a_rollback_needs_no_store_but_for_the_document(releases: Releases, start: Start) -> None:
    releases.publish("m1")
    one = start()
    releases.publish("m2")
    one.serves("m2")
    until(lambda: one.registry.loaded == {"m1", "m2"})
    shutil.rmtree(releases.root / "models")

    began = time.monotonic()
    assert releases.roll_back() == "m1"
    one.serves("m1")
    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_fifty_releases_and_rollbacks_under_load_fail_no_request_and_mix_no_versions(
    releases: Releases, start: Start, versions: dict[str, Path]
) -> None:
    expected = {
        version: [answer.text for answer in OnnxEngine(folder).generate([f"question: {i}? answer:" for i in "abc"], 8)]
        for version, folder in versions.items()
    }
    assert len({tuple(answers) for answers in expected.values()}) == 3
    releases.publish("m1")
    one = start()
    one.serves("m1")
    scores = RollingScores(10, 60)
    metrics = ServingMetrics("qa", "aws", lambda: Snapshot({}, None, 0, {}))
    app = create_app(Service(one.registry, scores, metrics, None, default_max_new_tokens=8), cloud="aws")
    stop, asked, problems = threading.Event(), itertools.count(), list[object]()

    def client(path: str) -> None:
        http = app.test_client()
        for i, letter in itertools.cycle(enumerate("abc")):
            if stop.is_set():
                return
            body: dict[str, Any] = {"question": f"{letter}?"}
            reply = http.post(path, json=body | ({"answers": ["x"]} if path == "/feedback" else {}))
            said: Any = reply.json
            text = said.get("answer", said.get("prediction"))
            if reply.status_code != 200 or expected[said["model_version"]][i] != text:
                problems.append(said)
            next(asked)

    clients = [threading.Thread(target=client, args=(path,)) for path in ("/predict", "/invocations", "/feedback")]
    for thread in clients:
        thread.start()
    for turn in range(50):
        if turn % 2:
            wanted = releases.roll_back()
        else:
            assert releases.release is not None
            wanted = next(
                v for v in ("m3", "m2", "m1") if v not in (one.registry.active, releases.release.of("previous"))
            )
            releases.publish(wanted)
        one.serves(wanted, releases.release.revision if releases.release else 0)
        with one.registry.lease() as (version, batcher):
            assert version == wanted
            assert batcher.answer("question: a? answer:", 8, 10).text == expected[wanted][0]
    stop.set()
    for thread in clients:
        thread.join()

    assert problems == []
    assert next(asked) > 50


# --- what is served is one's own copy


def test_objects_overwritten_in_place_change_no_answer(
    releases: Releases, start: Start, versions: dict[str, Path]
) -> None:
    releases.publish("m1")
    one = start()
    one.serves("m1")
    for path in (releases.root / "models/m1").iterdir():
        path.write_bytes(b"\0" * path.stat().st_size)

    with one.registry.lease() as (_, batcher):
        texts = [batcher.answer(prompt, 8, 10).text for prompt in PROMPTS]
    assert texts == [answer.text for answer in OnnxEngine(versions["m1"]).generate(PROMPTS, 8)]


class _Breaking(FolderObjects):
    """A folder whose connection breaks after some ranges; counts what was read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.left, self.read = 10**9, 0

    def get_range(self, key: str, start: int, length: int) -> bytes:
        if self.left == 0:
            raise UnavailableError("the store", "the connection broke")
        self.left -= 1
        found = super().get_range(key, start, length)
        self.read += len(found)
        return found


def test_a_fetch_that_breaks_goes_on_where_it_was(
    releases: Releases, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version_cache, "CHUNK_BYTES", 4096)
    store = _Breaking(releases.root)
    store.left = 20
    releases.publish("m1")
    one = start(store=store)
    until(lambda: "the connection broke" in one.follower.reason)
    assert one.registry.active is None
    until(lambda: _states(releases) == {"m1": "loading"})  # the version is not to blame

    store.left = 10**9
    one.serves("m1")
    sizes = [e.size for e in releases.store.entries(model_folder("m1")) if e.key != manifest_key("m1")]
    assert store.read == sum(sizes)


def test_what_a_restart_finds_on_its_disk_is_not_fetched_again_unless_it_is_damaged(
    releases: Releases, start: Start
) -> None:
    releases.publish("m1")
    one = start()
    one.serves("m1")
    folder = one.cache.folder("m1")
    one.close()
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    (folder / ".tokenizer.json.partial").write_bytes(b"what a killed process left")
    (folder / "stray.bin").write_bytes(b"?")

    store = _Breaking(releases.root)
    again = start(store=store)
    again.serves("m1")
    assert store.read == len(weights)
    assert not (folder / "stray.bin").exists()


def test_a_partial_file_of_another_upload_is_begun_anew(releases: Releases, tmp_path: Path, start: Start) -> None:
    releases.publish("m1")
    folder = tmp_path / "cache/0/versions/m1"
    folder.mkdir(parents=True)
    (folder / ".model.safetensors.partial").write_bytes(b"other bytes" * 100)
    (folder / ".tokenizer.json.partial").write_bytes(b"longer than the object" * 10_000)

    start().serves("m1")


def test_two_processes_have_a_folder_and_a_name_each(tmp_path: Path) -> None:
    one, two = version_cache.VersionCache(tmp_path), version_cache.VersionCache(tmp_path)
    assert one.folder("m1") != two.folder("m1")
    assert one.instance != two.instance
    name = one.instance
    one.close()
    again = version_cache.VersionCache(tmp_path)
    assert again.instance == name, "a restart has the name it had"


# --- versions that cannot be had


def test_a_version_without_its_manifest_is_not_there_yet(
    releases: Releases, start: Start, versions: dict[str, Path]
) -> None:
    releases.publish("m1")
    one = start()
    one.serves("m1")
    (releases.root / manifest_key("m2")).unlink()
    releases.publish("m2")

    until(lambda: "models/m2/manifest.json is not there yet" in one.follower.reason)
    until(lambda: "not there yet" in releases.status().reason)
    assert _states(releases) == {"m1": "active", "m2": "loading"}
    assert serving(releases.release, [releases.status()], time.time()).updating

    releases.upload(versions["m2"], "m2")
    one.serves("m2")
    until(lambda: one.follower.reason == "")


def test_a_wrong_hash_is_never_loaded_and_tried_again_with_a_new_manifest_only(
    releases: Releases, start: Start, versions: dict[str, Path]
) -> None:
    releases.publish("m1")
    one = start()
    one.serves("m1")
    weights = releases.root / "models/m2/model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"\1")
    releases.publish("m2")

    until(lambda: _states(releases).get("m2") == "failed")
    (failed,) = [v for v in releases.status().versions if v.model_version == "m2"]
    assert "models/m2/model.safetensors: sha256 is" in failed.reason
    assert one.registry.active == "m1"
    assert one.follower.followed.failed == ("m2",)
    assert "version" in one.errors
    assert not (one.cache.folder("m2") / "model.safetensors").exists()
    weights.write_bytes(good)
    time.sleep(0.5)
    assert one.registry.active == "m1", "nobody said that anything changed"

    manifest = decode(ModelManifest, (versions["m2"] / "manifest.json").read_bytes())
    releases.store.put(manifest_key("m2"), encode(msgspec.structs.replace(manifest, created_s=1.0)))
    one.serves("m2")


def test_a_failed_version_is_tried_again_with_the_next_revision(releases: Releases, start: Start) -> None:
    missing = releases.root / "models/m1/tokenizer.json"
    content = missing.read_bytes()
    missing.unlink()
    releases.publish("m1")
    one = start()
    until(lambda: _states(releases).get("m1") == "failed")
    assert "models/m1/tokenizer.json is missing, though the manifest lists it" in one.follower.reason

    missing.write_bytes(content)
    releases.publish("m1")
    one.serves("m1")


def test_a_new_instance_that_cannot_load_the_stable_version_serves_the_previous_one(
    releases: Releases, start: Start
) -> None:
    releases.publish("m1")
    releases.publish("m2")
    (releases.root / "models/m2/config.json").write_text("{}")
    one = start()

    one.serves("m1")
    until(lambda: _states(releases) == {"m1": "active", "m2": "failed"})
    assert "cannot load m2" in serving(releases.release, [releases.status()], time.time()).reason


@pytest.mark.parametrize("name", ["../../escaped", "/etc/escaped", "a/../b", ".hidden", "manifest.json"])
def test_a_manifest_that_names_other_places_is_refused(
    releases: Releases, start: Start, a_manifest: Callable[..., ModelManifest], tmp_path: Path, name: str
) -> None:
    hostile = a_manifest(model_version="m1", files={name: "0" * 64})
    releases.store.put(manifest_key("m1"), encode(hostile))
    releases.publish("m1")
    one = start()

    until(lambda: "which is no file of a model" in one.follower.reason)
    assert not list(tmp_path.rglob("*escaped*"))


def test_another_versions_manifest_is_refused(releases: Releases, start: Start, versions: dict[str, Path]) -> None:
    releases.upload(versions["m2"], "m1")
    releases.publish("m1")
    one = start()

    until(lambda: "models/m1/manifest.json is of version 'm2', not 'm1'" in one.follower.reason)


def test_too_little_memory_is_said_in_numbers_and_nothing_is_dropped_that_serves(
    releases: Releases, start: Start
) -> None:
    memory = _Memory()
    releases.publish("m1")
    one = start(memory=memory)
    one.serves("m1")
    memory.free = 100_000
    releases.publish("m2")

    until(lambda: _states(releases).get("m2") == "failed")
    (failed,) = [v for v in releases.status().versions if v.model_version == "m2"]
    assert re.fullmatch(r"it needs about 0\.\d MB of memory beside what is loaded, there are 0\.1 MB", failed.reason)
    assert one.registry.active == "m1"

    memory.free = 10**9
    releases.publish("m2")
    one.serves("m2")


def test_previous_is_dropped_first_when_memory_is_short(releases: Releases, start: Start) -> None:
    class Tight(_Memory):
        """Room for two models."""

        def free_bytes(self) -> int:
            return 10**9 if len(one.registry.loaded) < 2 else 0

    releases.publish("m1")
    one = start(memory=Tight())
    one.serves("m1")
    releases.publish("m2")
    one.serves("m2")
    until(lambda: one.registry.loaded == {"m1", "m2"})
    releases.roles(stable="m2", candidate="m3", previous="m1")

    until(lambda: one.registry.loaded == {"m2", "m3"})
    until(lambda: _states(releases) == {"m1": "failed", "m2": "active", "m3": "ready"})
    (dropped,) = [v for v in releases.status().versions if v.model_version == "m1"]
    assert dropped.reason == "unloaded: m3 needs the memory"


# --- documents that cannot be followed


def _newer(releases: Releases) -> bytes:
    assert releases.release is not None
    return encode(releases.release).replace(b'"version":1', b'"version":99')


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (lambda _: b"{", "release/qa.json cannot be understood"),
        (lambda _: b"<html>", "cannot be understood"),
        (_newer, "release/qa.json is from a newer program"),
        (lambda r: encode(msgspec.structs.replace(r.release, service="other")), "is of service 'other'"),
        (lambda r: encode(msgspec.structs.replace(r.release, versions=())), "cannot be understood"),
        (lambda r: encode(r.release).replace(b'"stable"', b'"candidate"'), "names no stable version"),
        (lambda _: None, "the release is gone"),
    ],
)
def test_a_document_that_cannot_be_followed_changes_nothing_that_serves(
    releases: Releases, start: Start, document: Callable[[Releases], bytes | None], says: str
) -> None:
    releases.publish("m1")
    one = start()
    one.serves("m1")
    body = document(releases)
    if body is None:
        (releases.root / release_key("qa")).unlink()
    else:
        releases.store.put(release_key("qa"), body)

    until(lambda: says in one.follower.reason)
    until(lambda: says in releases.status().reason)
    assert (one.registry.active, releases.status().active) == ("m1", "m1")
    assert "document" in one.errors

    releases.publish("m2")
    one.serves("m2")
    until(lambda: one.follower.reason == "")


def test_a_store_that_is_gone_changes_nothing_that_serves(releases: Releases, start: Start) -> None:
    class Away(FolderObjects):
        away = False

        def get_tagged(self, key: str, *, if_none_match: str | None = None) -> Any:
            if self.away:
                raise UnavailableError("the store", "no route to host")
            return super().get_tagged(key, if_none_match=if_none_match)

        def put(self, key: str, body: bytes) -> None:
            if self.away:
                raise OSError("no route to host")
            super().put(key, body)

    store = Away(releases.root)
    releases.publish("m1")
    one = start(store=store)
    one.serves("m1")
    store.away = True
    releases.publish("m2")

    until(lambda: "release/qa.json cannot be read: the store is unavailable: no route to host" in one.follower.reason)
    until(lambda: {"store", "status"} <= set(one.errors))
    with one.registry.lease() as (version, batcher):
        assert (version, bool(batcher.answer(PROMPTS[0], 8, 10).tokens)) == ("m1", True)
    store.away = False
    one.serves("m2")


def test_without_a_document_there_is_a_reason(releases: Releases, start: Start) -> None:
    one = start()
    until(lambda: "nothing is released yet" in one.follower.reason)
    assert releases.root.name in one.follower.reason
    until(lambda: (releases.root / "release/qa/instances/one.json").exists())
    assert "nothing is released yet" in releases.status().reason
    assert (releases.status().revision, releases.status().active) == (0, None)


# --- the end


def test_a_stopped_instance_is_gone_at_once(releases: Releases, start: Start) -> None:
    releases.publish("m1")
    one = start()
    one.serves("m1")
    until(lambda: _states(releases) == {"m1": "active"})

    one.follower.close()

    assert serving(releases.release, [releases.status()], time.time()).version is None


def test_a_store_that_hangs_does_not_keep_the_process(releases: Releases, start: Start) -> None:
    hanging = threading.Event()

    class Hanging(FolderObjects):
        def put(self, key: str, body: bytes) -> None:
            hanging.wait(20)

    releases.publish("m1")
    one = start(store=Hanging(releases.root))
    one.serves("m1")
    began = time.monotonic()
    one.follower.close()
    assert time.monotonic() - began < 5
    hanging.set()


def test_pieces_are_bounded() -> None:
    assert object_store.CHUNK_BYTES <= 8 * 2**20
