from pathlib import Path

import pytest

from shared.contracts import FeedbackPair, encode
from shared.errors import InvalidInputError
from training_containers.finetune.data.pairs import MIN_PAIRS, read_pairs, split_by_time


def pair(question: str, at_s: float, answer: str = "a") -> FeedbackPair:
    return FeedbackPair(question=question, answers=(answer,), received_s=at_s)


def write(path: Path, pairs: list[FeedbackPair]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(encode(p) + b"\n" for p in pairs))


def test_pairs_of_all_files_come_oldest_first_within_the_window_and_once(tmp_path: Path) -> None:
    pairs = [pair(f"q{i}", float(i)) for i in range(20)]
    write(tmp_path / "b/late.jsonl", pairs[10:])
    write(tmp_path / "a.jsonl", pairs[:10] + pairs[:3])  # delivered twice
    assert read_pairs(tmp_path, 2.0, 18.0) == pairs[2:18]


def test_what_sagemaker_and_notebooks_leave_in_a_channel_is_not_data(tmp_path: Path) -> None:
    pairs = [pair(f"q{i}", float(i)) for i in range(MIN_PAIRS)]
    write(tmp_path / "a.jsonl", pairs)
    write(tmp_path / ".ipynb_checkpoints/a-checkpoint.jsonl", [pair("stale", 3.0)])
    (tmp_path / "a.jsonl.manifest").write_text('[{"prefix": "s3://bucket/"}, "a.jsonl"]')

    assert read_pairs(tmp_path) == pairs


def test_a_wrong_line_is_named_by_file_and_number(tmp_path: Path) -> None:
    write(tmp_path / "p.jsonl", [pair("q", 1.0)])
    with (tmp_path / "p.jsonl").open("a") as file:
        file.write('{"question": "no answers", "received_s": 1}\n')
    with pytest.raises(InvalidInputError, match=r"p\.jsonl, line 2: .*answers"):
        read_pairs(tmp_path)


def test_too_few_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no \*\.jsonl"):
        read_pairs(tmp_path)
    write(tmp_path / "p.jsonl", [pair(f"q{i}", float(i)) for i in range(MIN_PAIRS)])
    assert len(read_pairs(tmp_path)) == MIN_PAIRS
    with pytest.raises(InvalidInputError, match=f"{MIN_PAIRS - 1} pairs"):
        read_pairs(tmp_path, start_s=1.0)


def test_recent_records_evaluate_and_are_not_trained_on() -> None:
    pairs = [pair(f"q{i % 8}", float(i)) for i in range(10)]  # q0 and q1 are asked again at the end
    split = split_by_time(pairs, eval_share=0.3, max_eval=100)
    assert [p.received_s for p in split.evaluation] == [3.0, 6.0, 9.0]  # every third, up to the newest
    assert not {p.received_s for p in split.train} & {p.received_s for p in split.evaluation}
    assert split.unseen_share == pytest.approx(2 / 3)  # q3 and q6 are asked once, q1 (at 9) is taught too (at 1)
    assert [p.received_s for p in split_by_time(pairs, eval_share=0.3, max_eval=2).evaluation] == [6.0, 9.0]


def test_what_came_up_just_now_is_both_learnt_and_judged_by() -> None:
    pairs = [*(pair(f"old{i}", float(i)) for i in range(90)), *(pair(f"new{i}", 90.0 + i) for i in range(10))]
    split = split_by_time(pairs, eval_share=0.2, max_eval=100)
    assert len(split.evaluation) == 20
    assert sum(p.question.startswith("new") for p in split.train) == 6
    assert sum(p.question.startswith("new") for p in split.evaluation) == 4


def test_the_newest_answer_to_a_question_is_learnt() -> None:
    pairs = [
        pair("Who leads?", 0.0, "old"),
        pair(" who  LEADS?", 1.0, "new"),
        *(pair(f"q{i}", 2.0 + i) for i in range(8)),
    ]
    split = split_by_time(pairs, eval_share=0.1, max_eval=10)
    assert [p.answers for p in split.train if "lead" in p.question.lower()] == [("new",)]
