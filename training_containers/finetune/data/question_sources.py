"""Question-answering data sets: read from a file, the Hugging Face hub, or built in.

| spec | what |
|---|---|
| builtin | invented facts in six topics, one after the other |
| squad | SQuAD 1.1's validation set from the Hugging Face cache or hub |
| datasets:NAME[@SPLIT] | a data set of the `datasets` library, by name or folder (see hub.py); train unless told |
| *.json | SQuAD JSON; the articles are the topics, in file order |
| *.jsonl | a line per question: RealTimeQA's fields, or question, answers (or answer) and date or received_s |

Files may be compressed (.xz, .gz).
"""

from __future__ import annotations

import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shared.errors import InvalidInputError
from training_containers.finetune.data.builtin import builtin_questions
from training_containers.finetune.data.hub import from_datasets, squad_from_hub
from training_containers.finetune.data.question import Question, plain, posix_s

__all__ = ["Question", "load_questions", "read_lines"]


def load_questions(spec: str) -> list[Question]:
    """The questions of `spec` (see the table above), oldest first.

    Raises:
        InvalidInputError: names the file and, where it applies, the line.
    """
    if spec == "builtin":
        questions = [
            Question(question=q.question, answers=(q.answer,), when=float(q.topic), topic=q.topic_name)
            for q in builtin_questions()
        ]
    elif spec == "squad":
        questions = squad_from_hub()
    elif spec.startswith("datasets:"):
        questions = from_datasets(spec.removeprefix("datasets:"))
    else:
        questions = _from_file(Path(spec))
    if not questions:
        raise InvalidInputError(f"{spec}: holds no question with an answer")
    return sorted(questions, key=lambda q: q.when)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line that is not blank, decompressing .xz and .gz.

    Raises:
        InvalidInputError: the file cannot be read, decompressed or is not UTF-8; names the last good line.
    """
    openers: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}
    opener = openers.get(path.suffix, open)
    number = 0
    try:
        with opener(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                if line := raw.decode("utf-8").strip():
                    yield number, line
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"{path}, line {number}: not UTF-8 text") from exc
    except (lzma.LZMAError, zlib.error, EOFError, gzip.BadGzipFile) as exc:
        raise InvalidInputError(f"{path}, after line {number}: the compressed data is damaged: {exc}") from exc
    except OSError as exc:
        raise InvalidInputError(f"{path}: cannot be read: {exc.strerror or exc}") from exc


def _from_file(path: Path) -> list[Question]:
    suffixes = [s for s in path.suffixes if s not in (".xz", ".gz")]
    kind = suffixes[-1] if suffixes else ""
    if kind == ".json":
        return _squad_json(path)
    if kind == ".jsonl":
        return list(_json_lines(path))
    raise InvalidInputError(
        f"{path}: unknown kind of question file; use builtin, squad, datasets:NAME, *.json or *.jsonl (.xz, .gz)"
    )


def _json_lines(path: Path) -> Iterator[Question]:
    for number, line in read_lines(path):
        try:
            record = json.loads(line)
            question = _real_time(record) if "question_sentence" in record else plain(record, number)
        except (ValueError, TypeError, KeyError, IndexError) as exc:
            reason = f"{exc} is missing" if isinstance(exc, KeyError) else str(exc)
            raise InvalidInputError(f"{path}, line {number}: {reason}") from exc
        if question is not None:
            yield question


def _real_time(record: dict[str, Any]) -> Question | None:
    """RealTimeQA: `answer` holds indices into `choices`. Its published files have a few empty records: None."""
    text, picks, choices = record["question_sentence"].strip(), record["answer"], record["choices"]
    if not text or not picks:
        return None
    answers = []
    for pick in picks:
        if not 0 <= int(pick) < len(choices):
            raise ValueError(f"answer {pick} is not one of the {len(choices)} choices")
        answers.append(choices[int(pick)].strip())
    if not all(answers):
        return None
    return Question(question=text, answers=tuple(answers), when=posix_s(record["question_date"]))


def _squad_json(path: Path) -> list[Question]:
    lines = dict(read_lines(path))
    text = "\n".join(lines.get(number, "") for number in range(1, max(lines, default=0) + 1))
    try:
        articles = json.loads(text)["data"]
        return [
            question
            for number, article in enumerate(articles)
            for paragraph in article["paragraphs"]
            for qa in paragraph["qas"]
            if (question := _squad_question(qa, number, article.get("title", ""))) is not None
        ]
    except json.JSONDecodeError as exc:
        raise InvalidInputError(f"{path}, line {exc.lineno}: {exc.msg}") from exc
    except (KeyError, TypeError, AttributeError) as exc:
        raise InvalidInputError(f"{path}: not SQuAD JSON (data, paragraphs, qas, question, answers): {exc}") from exc


def _squad_question(qa: dict[str, Any], number: int, title: str) -> Question | None:
    """None for the questions of SQuAD 2 that have no answer."""
    answers = tuple(dict.fromkeys(a["text"].strip() for a in qa["answers"] if a["text"].strip()))
    text = qa["question"].strip()
    return Question(question=text, answers=answers, when=float(number), topic=title) if text and answers else None
