"""Versions swap under load without a failed or a wrong answer; tampered artifacts are refused."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.errors import ConflictError, IntegrityError, InvalidInputError, ModelError, NotFoundError, UnavailableError
from training_containers.model.engines.int8 import Int8Engine
from training_containers.model.engines.onnx_gpt2 import OnnxEngine
from training_containers.serve.model_registry import Registry, VersionNotHereError

PROMPTS = ["question: who wrote hamlet? answer:", "the quick", "a", "question: what is it? answer:"]


@pytest.fixture
def registry() -> Registry:
    return Registry(OnnxEngine)


def test_before_the_first_model_there_is_no_answer(registry: Registry) -> None:
    with pytest.raises(UnavailableError, match="none is loaded yet"), registry.lease():
        pass


def test_a_directory_without_a_manifest_is_the_base_version(registry: Registry, model_dir: Path) -> None:
    assert registry.load(model_dir, activate=True) == "base"
    assert registry.active == "base"


@pytest.mark.parametrize("engine", [OnnxEngine, Int8Engine])
def test_swaps_under_load_fail_no_request_and_mix_no_versions(
    int8_versions: dict[str, Path], engine: Callable[[Path], OnnxEngine | Int8Engine]
) -> None:
    versions = int8_versions
    expected = {v: [a.text for a in engine(d).generate(PROMPTS, 8)] for v, d in versions.items()}
    assert len({tuple(answers) for answers in expected.values()}) == 3, "versions must be told apart by their answers"
    registry = Registry(engine)
    registry.load(versions["m1"], activate=True)
    stop, counts = threading.Event(), itertools.count()
    problems: list[object] = []

    def client() -> None:
        for i in itertools.cycle(range(len(PROMPTS))):
            if stop.is_set():
                return
            try:
                with registry.lease() as (version, batcher):
                    text = batcher.answer(PROMPTS[i], 8, 10).text
                if text != expected[version][i]:
                    problems.append((version, i, text))
            except Exception as exc:
                problems.append(exc)
            next(counts)

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    for _, version in zip(range(50), itertools.cycle(["m2", "m3", "m1"]), strict=False):
        registry.load(versions[version], version, activate=True)
        for other in registry.loaded - {version}:
            registry.unload(other)
    stop.set()
    for thread in clients:
        thread.join()

    assert problems == []
    assert next(counts) > 100
    assert len(registry.loaded) == 1
    assert registry.draining == 0


def test_an_old_version_stays_addressable_until_it_is_unloaded(registry: Registry, versions: dict[str, Path]) -> None:
    registry.load(versions["m1"], activate=True)
    registry.load(versions["m2"], activate=True)

    with registry.lease("m1") as (version, batcher):
        assert version == "m1"
        registry.unload("m1")
        assert batcher.answer("the", 3, 10).tokens, "a request that has begun is finished"
        assert registry.draining == 1
    assert registry.draining == 0

    with pytest.raises(VersionNotHereError, match="'m1' is not loaded here; loaded: m2"), registry.lease("m1"):
        pass


def test_the_active_version_cannot_be_unloaded(registry: Registry, versions: dict[str, Path]) -> None:
    registry.load(versions["m1"], activate=True)

    with pytest.raises(InvalidInputError, match="activate another one first"):
        registry.unload("m1")
    with pytest.raises(NotFoundError):
        registry.unload("m9")
    with pytest.raises(NotFoundError):
        registry.activate("m9")


def test_who_stops_being_active_is_told(versions: dict[str, Path]) -> None:
    gone: list[str] = []
    registry = Registry(OnnxEngine, on_inactive=gone.append)
    registry.load(versions["m1"], activate=True)
    registry.load(versions["m2"], activate=True)

    assert gone == ["m1"]


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json", "model.int8.safetensors"])
def test_a_changed_file_is_refused_and_the_active_version_goes_on(
    registry: Registry, int8_versions: dict[str, Path], file: str
) -> None:
    versions = int8_versions
    registry.load(versions["m1"], activate=True)
    content = bytearray((versions["m2"] / file).read_bytes())
    content[-20] ^= 1
    (versions["m2"] / file).write_bytes(content)

    with pytest.raises(IntegrityError, match=file):
        registry.load(versions["m2"])

    assert registry.active == "m1"
    with registry.lease() as (version, batcher):
        assert version == "m1"
        assert batcher.answer("the", 3, 10).tokens


def test_an_artifact_of_another_version_is_refused(registry: Registry, versions: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="holds version 'm1', not 'm2'"):
        registry.load(versions["m1"], "m2")


def test_loading_twice_is_refused(registry: Registry, versions: dict[str, Path]) -> None:
    registry.load(versions["m1"], activate=True)

    with pytest.raises(ConflictError):
        registry.load(versions["m1"])
    assert registry.loaded == {"m1"}


def test_what_is_served_is_a_copy_that_nobody_overwrites(registry: Registry, versions: dict[str, Path]) -> None:
    expected = OnnxEngine(versions["m1"]).generate(PROMPTS, 8)
    registry.load_copy(versions["m1"], activate=True)

    for path in versions["m1"].iterdir():  # in place: the same file, other bytes
        path.write_bytes(b"\0" * path.stat().st_size)

    with registry.lease() as (version, batcher):
        assert version == "m1"
        assert [batcher.answer(p, 8, 10) for p in PROMPTS] == expected


def test_without_room_for_a_copy_the_model_is_served_in_place(
    registry: Registry, versions: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")

    registry.load_copy(versions["m1"], activate=True)

    assert registry.active == "m1"
    assert "in place" in str(vars(caplog.records[0]).get("reason"))


def test_more_tokens_than_the_model_has_room_for_are_refused_at_the_load(versions: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"--max-new-tokens 90 is too much for m1: .*there is room for 6"):
        Registry(OnnxEngine, max_new_tokens=90).load(versions["m1"])


def test_a_path_that_does_not_exist_is_named(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere: no such model directory"):
        registry.load_copy(tmp_path / "nowhere")
