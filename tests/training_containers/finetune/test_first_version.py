"""A service's first version: named by its content, made once, an artifact's folder taken as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from shared.errors import InvalidInputError
from training_containers.finetune.first_version import first_version
from training_containers.model.artifact import verify, write_manifest

PLAIN = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def plain(base_model: Path, tmp_path: Path) -> Path:
    """A model's folder as the hub would give it: without manifest and engines."""
    folder = tmp_path / "plain"
    folder.mkdir()
    for name in PLAIN:
        shutil.copy(base_model / name, folder)
    return folder


def test_a_models_folder_becomes_an_artifact_once(plain: Path, tmp_path: Path) -> None:
    folder, manifest = first_version(str(plain), tmp_path / "cache", "faq")
    assert verify(folder) == manifest
    assert manifest.service == "faq"
    assert {"model.onnx", "precision.json", "model.int8.onnx"} <= set(manifest.files)
    assert manifest.candidate.examples > 0
    stamp = (folder / "model.onnx").stat().st_mtime_ns
    again, same = first_version(str(plain), tmp_path / "cache", "faq")
    assert (again, same) == (folder, manifest)
    assert (folder / "model.onnx").stat().st_mtime_ns == stamp
    elsewhere = first_version(str(plain), tmp_path / "other", "faq")[1]
    assert elsewhere.model_version == manifest.model_version, "the same content is the same version"


def test_an_artifact_is_taken_as_it_is_but_for_the_name_base(base_model: Path, tmp_path: Path) -> None:
    folder, manifest = first_version(str(base_model), tmp_path / "cache", "qa")
    assert manifest.model_version.startswith("m"), "`base` means what the image brings, not a version in a store"
    assert manifest.files == verify(base_model).files
    write_manifest(folder, msgspec.structs.replace(manifest, model_version="m7"))
    assert first_version(str(folder), tmp_path / "cache", "qa")[1].model_version == "m7"


def test_no_model_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match=r"config\.json is missing"):
        first_version(str(tmp_path / "empty"), tmp_path, "qa")
