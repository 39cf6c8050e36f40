"""Questions from the Hugging Face hub, or from what its `datasets` library keeps in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from shared.errors import InvalidInputError
from training_containers.finetune.data.question import Question, plain

_SQUAD_REPOSITORY: Final = "rajpurkar/squad"
_SQUAD_FILE: Final = "plain_text/validation-00000-of-00001.parquet"


def squad_from_hub() -> list[Question]:
    """SQuAD 1.1's validation set.

    Raises:
        InvalidInputError: neither in the cache nor to be fetched.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = hf_hub_download(_SQUAD_REPOSITORY, _SQUAD_FILE, repo_type="dataset")
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as exc:
        raise InvalidInputError(
            "squad: neither in the Hugging Face cache nor can it be fetched; give the path of a SQuAD JSON file"
        ) from exc
    from pyarrow import parquet

    rows = parquet.read_table(path, columns=["title", "question", "answers"]).to_pylist()
    numbers = {title: n for n, title in enumerate(dict.fromkeys(row["title"] for row in rows))}
    return [
        Question(
            question=row["question"].strip(),
            answers=tuple(dict.fromkeys(row["answers"]["text"])),
            when=float(numbers[row["title"]]),
            topic=row["title"],
        )
        for row in rows
        if row["answers"]["text"]
    ]


def from_datasets(name: str) -> list[Question]:
    """The rows of a data set: question, answers (texts, or SQuAD's {"text": texts}) or answer, perhaps date and topic.

    `name` is NAME[@SPLIT]: a name on the hub, a folder of data files, or one written by `save_to_disk`. Rows without an
    answer are left out.

    Raises:
        InvalidInputError: the library is missing, the data set cannot be read, or a row is something else.
    """
    try:
        import datasets
    except ImportError as exc:
        raise InvalidInputError(f"datasets:{name}: needs the package datasets; pip install datasets") from exc
    place, _, split = name.partition("@")
    try:
        if (Path(place) / "dataset_info.json").exists() or (Path(place) / "dataset_dict.json").exists():
            found = datasets.load_from_disk(place)
            rows = found[split or "train"] if isinstance(found, datasets.DatasetDict) else found
        else:
            rows = datasets.load_dataset(place, split=split or "train")
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as exc:
        raise InvalidInputError(f"datasets:{name}: cannot be read: {str(exc).splitlines()[0]}") from exc
    questions = []
    for number, row in enumerate(rows, 1):
        try:
            if (fields := _fields(row)) is not None:
                questions.append(plain(fields, number))
        except (KeyError, ValueError, TypeError) as exc:
            reason = f"{exc} is missing" if isinstance(exc, KeyError) else str(exc)
            raise InvalidInputError(f"datasets:{name}, row {number}: {reason}") from exc
    return questions


def _fields(row: dict[str, Any]) -> dict[str, Any] | None:
    """The row with SQuAD's nested answers unpacked; None when it has no answer."""
    fields = {key: value for key, value in row.items() if value is not None}
    answers = fields.get("answers")
    if isinstance(answers, dict):
        fields["answers"] = list(dict.fromkeys(answers["text"]))
    if fields.get("answers") == []:
        return None
    if "title" in fields:
        fields.setdefault("topic", fields["title"])
    return fields
