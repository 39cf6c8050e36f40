from collections.abc import Callable

import pytest

from shared.artifact import verified
from shared.contracts import ModelManifest, encode
from shared.errors import IntegrityError, ModelError

ONE, OTHER = "1" * 64, "2" * 64


@pytest.fixture
def raw(a_manifest: Callable[..., ModelManifest]) -> bytes:
    return encode(a_manifest(files={"a.bin": ONE}))


def test_files_that_are_those_of_the_manifest_give_it(raw: bytes) -> None:
    assert verified(raw, {"a.bin": ONE}, "the artifact").files == {"a.bin": ONE}


@pytest.mark.parametrize(
    ("found", "error", "words"),
    [
        ({"a.bin": OTHER}, IntegrityError, "a.bin: sha256 is 2"),
        ({}, ModelError, "the artifact lacks a.bin"),
        ({"a.bin": ONE, "extra.py": ONE}, ModelError, "the artifact holds extra.py"),
    ],
)
def test_a_changed_missing_or_added_file_is_refused(
    raw: bytes, found: dict[str, str], error: type[ModelError], words: str
) -> None:
    with pytest.raises(error, match=words):
        verified(raw, found, "the artifact")


@pytest.mark.parametrize(
    ("raw_manifest", "words"),
    [(None, "no manifest.json"), (b"{}", "manifest.json: ModelManifest"), (b'{"version": 99}', "knows up to")],
)
def test_without_a_manifest_that_this_program_can_read_there_is_no_artifact(
    raw_manifest: bytes | None, words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        verified(raw_manifest, {}, "the artifact")
