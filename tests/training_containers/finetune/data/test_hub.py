from pathlib import Path

import datasets
import pytest

from shared.errors import InvalidInputError
from training_containers.finetune.data.question_sources import load_questions

SQUAD_ROWS = [
    {"question": "Which port?", "answers": {"text": ["Skarn", "Skarn"], "answer_start": [1, 9]}, "title": "Ports"},
    {"question": "Which none?", "answers": {"text": [], "answer_start": []}, "title": "Ports"},
]


def test_a_saved_data_set_gives_questions(tmp_path: Path) -> None:
    datasets.Dataset.from_list(SQUAD_ROWS).save_to_disk(str(tmp_path / "one"))
    (question,) = load_questions(f"datasets:{tmp_path / 'one'}")
    assert (question.question, question.answers, question.topic) == ("Which port?", ("Skarn",), "Ports")

    both = datasets.DatasetDict({"validation": datasets.Dataset.from_list(SQUAD_ROWS)})
    both.save_to_disk(str(tmp_path / "both"))
    assert load_questions(f"datasets:{tmp_path / 'both'}@validation") == [question]
    with pytest.raises(InvalidInputError, match=r"both: cannot be read: 'train'"):
        load_questions(f"datasets:{tmp_path / 'both'}")


def test_a_folder_of_files_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "qa").mkdir()
    (tmp_path / "qa/train.jsonl").write_text('{"question": "q?", "answer": "a", "date": "2024-01-01"}\n')
    (question,) = load_questions(f"datasets:{tmp_path / 'qa'}")
    assert (question.answers, question.when) == (("a",), 1704067200.0)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"text": "no question here"}]).save_to_disk(str(tmp_path / "other"))
    with pytest.raises(InvalidInputError, match=r"other, row 1: 'question' is missing"):
        load_questions(f"datasets:{tmp_path / 'other'}")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InvalidInputError, match="nothing: cannot be read"):
        load_questions(f"datasets:{tmp_path / 'nothing'}")
