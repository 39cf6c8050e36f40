import contextlib
import io
import tarfile
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


def test_an_artifact_survives_packing(folder: Path, tmp_path: Path) -> None:
    artifact.pack(folder, tmp_path / "model.tar.gz")
    artifact.pack(folder, tmp_path / "again.tar.gz")
    assert (tmp_path / "model.tar.gz").read_bytes() == (tmp_path / "again.tar.gz").read_bytes()
    artifact.unpack((tmp_path / "model.tar.gz").read_bytes(), tmp_path / "out")
    assert artifact.verify(tmp_path / "out") == artifact.verify(folder)
    assert artifact.find_model(tmp_path, tmp_path / "scratch") == tmp_path / "scratch"


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


@pytest.mark.parametrize("name", ["../escaped", "/escaped-absolute", "sub/../../escaped"])
def test_a_member_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    inside = tmp_path / "deep/out"
    with contextlib.suppress(ModelError):
        artifact.unpack(archive, inside)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file() and not p.is_relative_to(inside)} == {"model.tar.gz"}
    assert not Path("/escaped-absolute").exists()


def test_links_and_damaged_archives_are_refused(folder: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked.tar.gz"
    with tarfile.open(linked, "w:gz") as tar:
        info = tarfile.TarInfo("config.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(ModelError, match="is a link"):
        artifact.unpack(linked, tmp_path / "a")
    artifact.pack(folder, tmp_path / "model.tar.gz")
    whole = (tmp_path / "model.tar.gz").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"not an archive", b"", whole[:60] + b"\xff" * 20 + whole[80:]):
        with pytest.raises(ModelError):
            artifact.unpack(damaged, tmp_path / "b")
    with pytest.raises(ModelError):
        artifact.unpack(tmp_path / "nowhere.tar.gz", tmp_path / "c")
