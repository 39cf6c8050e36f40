from collections.abc import Callable
from pathlib import Path

import pytest

from shared.contracts import ModelManifest
from shared.errors import IntegrityError, ModelError
from training_containers.model import artifact


@pytest.fixture
def folder(tmp_path: Path, a_manifest: Callable[..., ModelManifest]) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub/weights.bin").write_bytes(b"\0" * 1000)
    artifact.write_manifest(folder, a_manifest(files=artifact.hash_files(folder)))
    return folder


def test_a_folder_that_agrees_with_its_manifest_is_a_model(folder: Path) -> None:
    assert set(artifact.verify(folder).files) == {"config.json", "sub/weights.bin"}
    assert artifact.find_model(folder, sealed=True) == folder
    assert artifact.find_model(folder / "sub") is None


def test_what_services_and_tools_leave_in_every_folder_is_no_part_of_it(folder: Path) -> None:
    before = artifact.verify(folder)
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints/config-checkpoint.json").write_text("{}")
    (folder / "parent.manifest").write_text("[]")

    assert artifact.verify(folder) == before
    assert artifact.hash_files(folder) == before.files


def test_a_changed_missing_or_added_file_is_refused(folder: Path) -> None:
    weights = folder / "sub/weights.bin"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"\1")
    with pytest.raises(IntegrityError, match=r"sub/weights\.bin: sha256"):
        artifact.verify(folder)
    weights.unlink()
    with pytest.raises(ModelError, match="is missing"):
        artifact.verify(folder)
    weights.write_bytes(good)
    (folder / "evil.pkl").write_bytes(b"")
    with pytest.raises(ModelError, match=r"evil\.pkl is not in the manifest"):
        artifact.verify(folder)


def test_a_folder_without_a_readable_manifest_is_no_artifact(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ModelError, match=r"manifest\.json: ModelManifest"):
        artifact.verify(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(ModelError, match=r"no manifest\.json"):
        artifact.verify(folder)
