import contextlib
from pathlib import Path

from training_containers.finetune.loop import checkpoint


def save(root: Path, step: int, fingerprint: str = "run", content: str = "weights") -> None:
    def write(folder: Path) -> None:
        (folder / "model").write_text(content)

    checkpoint.save(root, step, fingerprint, write)


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    save(tmp_path, 3)
    save(tmp_path, 12)
    save(tmp_path, 12, content="again")
    found = checkpoint.newest(tmp_path, "run")
    assert found is not None
    assert found.step == 12
    assert (found.folder / "model").read_text() == "again"
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-12"]


def test_a_damaged_incomplete_or_foreign_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "nowhere", "run") is None
    save(tmp_path, 5)
    assert checkpoint.newest(tmp_path, "other run") is None
    (tmp_path / "checkpoint-5/model").write_text("wEights")
    assert checkpoint.newest(tmp_path, "run") is None
    save(tmp_path, 5)
    (tmp_path / "checkpoint-9").mkdir()  # a folder without its seal is unfinished
    found = checkpoint.newest(tmp_path, "run")
    assert found is not None
    assert found.step == 5


def test_a_write_that_dies_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 5)

    def die(folder: Path) -> None:
        (folder / "model").write_text("half")
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        checkpoint.save(tmp_path, 6, "run", die)
    found = checkpoint.newest(tmp_path, "run")
    assert found is not None
    assert found.step == 5
    checkpoint.discard(tmp_path)
    assert list(tmp_path.iterdir()) == []
