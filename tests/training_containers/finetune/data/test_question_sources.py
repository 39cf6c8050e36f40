import gzip
import json
import lzma
from collections import Counter
from pathlib import Path

import pytest

from shared.errors import InvalidInputError
from training_containers.finetune.data.question_sources import load_questions

SQUAD = {
    "data": [
        {
            "title": "Ports",
            "paragraphs": [
                {
                    "context": "...",
                    "qas": [
                        {"id": "1", "question": "Which port?", "answers": [{"text": "Skarn"}, {"text": "Skarn"}]},
                        {"id": "2", "question": "Which none?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ]
}
REAL_TIME = {
    "question_date": "2020/01/03",
    "question_sentence": "Which country?",
    "choices": ["Iraq", "Iran"],
    "answer": ["1"],
}


def test_builtin_questions_drift_over_topics_that_share_no_answer() -> None:
    questions = load_questions("builtin")
    per_topic = Counter(q.topic for q in questions)
    assert len(per_topic) >= 4
    assert min(per_topic.values()) >= 120
    assert [q.when for q in questions] == sorted(q.when for q in questions)
    assert len({q.question for q in questions}) == len(questions)
    topics_of_answer: dict[str, set[str]] = {}
    for q in questions:
        topics_of_answer.setdefault(q.answers[0].lower(), set()).add(q.topic)
        assert 1 <= len(q.answers[0].split()) <= 4
    assert all(len(topics) == 1 for topics in topics_of_answer.values())
    assert load_questions("builtin") == questions


def test_squad_json_gives_answerable_questions(tmp_path: Path) -> None:
    path = tmp_path / "dev.json.xz"
    path.write_bytes(lzma.compress(json.dumps(SQUAD).encode()))
    (question,) = load_questions(str(path))
    assert (question.question, question.answers, question.topic) == ("Which port?", ("Skarn",), "Ports")


def test_real_time_qa_answers_are_indices_into_the_choices(tmp_path: Path) -> None:
    path = tmp_path / "real.jsonl"
    empty = {**REAL_TIME, "question_sentence": "", "choices": []}
    path.write_text(f"{json.dumps(REAL_TIME)}\n{json.dumps(empty)}\n")
    (question,) = load_questions(str(path))
    assert question.answers == ("Iran",)
    assert question.when == 1578009600.0  # 2020-01-03 UTC


def test_plain_lines_are_sorted_by_date(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl.gz"
    lines = [
        {"question": "late?", "answers": ["b"], "date": "2024-02-01"},
        {"question": "early?", "answer": "a", "date": "2023-02-01"},
    ]
    path.write_bytes(gzip.compress("\n\n".join(map(json.dumps, lines)).encode()))
    assert [(q.question, q.answers) for q in load_questions(str(path))] == [("early?", ("a",)), ("late?", ("b",))]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{oops", "Expecting"),
        ("[1]", "not a JSON object"),
        ('{"answers": ["a"]}', "'question' is missing"),
        ('{"question": "q"}', "'answer' is missing"),
        ('{"question": "q", "answers": []}', "answers is not"),
        ('{"question": "q", "answers": ["a"], "date": "yesterday"}', "yesterday"),
        (json.dumps({**REAL_TIME, "answer": ["7"]}), "answer 7 is not one of the 2 choices"),
    ],
)
def test_a_line_that_does_not_parse_is_named_by_number(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "fine?", "answers": ["yes"]}\n\n' + line + "\n")
    with pytest.raises(InvalidInputError, match=r"q\.jsonl, line 3: .*" + reason.replace("[", r"\[")):
        load_questions(str(path))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.jsonl", None, "cannot be read"),
        ("empty.jsonl", b"", "holds no question"),
        ("cut.jsonl.xz", lzma.compress(b'{"question": "q", "answers": ["a"]}\n' * 9)[:-20], "damaged"),
        ("cut.jsonl.gz", gzip.compress(b'{"question": "q", "answers": ["a"]}\n' * 9, mtime=0)[:-9], "damaged"),
        ("latin.jsonl", '{"question": "é"}'.encode("latin-1"), "line 1: not UTF-8"),
        ("not-squad.json", b'{"data": [{}]}', "not SQuAD JSON"),
        ("broken.json", b'{"data":\n\n [', "line 3"),
        ("table.csv", b"a,b", "unknown kind"),
    ],
)
def test_an_unusable_file_is_named(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=reason) as caught:
        load_questions(str(path))
    assert name in str(caught.value)
