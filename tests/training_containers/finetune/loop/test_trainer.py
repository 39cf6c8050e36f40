import platform
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from shared.contracts import FeedbackPair
from shared.errors import InvalidInputError
from tests.training_containers.finetune.conftest import drifted
from training_containers.finetune.loop.answer_loss import AnswerLoss, mean_loss
from training_containers.finetune.loop.encoding import IGNORE, Example, collate, encode_pairs, load_tokenizer
from training_containers.finetune.loop.hardware import Hardware, pick
from training_containers.finetune.loop.trainer import Plan, fit
from training_containers.finetune.torch_model import load_model

pytestmark = pytest.mark.slow


def examples(base_model: Path, answer: str | None = None) -> list[Example]:
    """Questions that the base model does not know, with their answers or all with the same one."""
    pairs = [
        FeedbackPair(question=q.question, answers=(answer or q.answers[0],), received_s=0.0) for q in drifted(0, 64)
    ]
    return encode_pairs(load_tokenizer(base_model), pairs, 0, 256)[0]


def plan(folder: Path, epochs: int, **changes: object) -> Plan:
    plan = Plan(epochs, 2e-3, 32, 0, 0.0, 600.0, 600.0, folder, "run")
    return plan._replace(**changes)  # type: ignore[arg-type]


def test_training_ends_when_nothing_is_gained_and_keeps_the_best_weights(base_model: Path, tmp_path: Path) -> None:
    model, contrary = load_model(base_model), examples(base_model, "something else entirely")
    outcome = fit(model, examples(base_model), plan(tmp_path, 30, patience=2), lambda: False, contrary)
    assert outcome.why == "no longer improving"
    assert outcome.epochs < 30
    # what is kept is what was best, not what came last
    assert mean_loss(model, contrary, 32) == pytest.approx(outcome.validation_loss, rel=1e-4)

    # killed after the end: the finished run is taken over as it is
    again = load_model(base_model)
    resumed = fit(again, examples(base_model), plan(tmp_path, 30, patience=2), lambda: False, contrary)
    assert resumed == outcome._replace(resumed_from=outcome.steps)
    assert mean_loss(again, contrary, 32) == pytest.approx(outcome.validation_loss, rel=1e-4)


def test_bf16_learns_what_fp32_learns(base_model: Path, tmp_path: Path) -> None:
    losses = []
    for bf16 in (False, True):
        made = plan(tmp_path / str(bf16), 4, hardware=Hardware(cuda=False, bf16=bf16))
        losses.append(fit(load_model(base_model), examples(base_model), made, lambda: False).loss)
    assert losses[0] is not None
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_a_token_of_the_question_counts_its_weight_and_padding_never(base_model: Path) -> None:
    network = load_model(base_model).eval()
    batch = collate([Example([5, 6, 7, 8, 9], 3), Example([10, 11, 12], 2), Example([13, 14, 15, 16], 3)])
    batch["labels"][2] = IGNORE  # a row that another process learns
    with torch.no_grad():
        log_chances = network(input_ids=batch["input_ids"]).logits.log_softmax(-1)
        answers, plain = AnswerLoss(network).eval()(**batch, answer_tokens=3)
        total, same = AnswerLoss(network, 0.25).eval()(**batch, answer_tokens=3)

    def losses(*of: tuple[int, int]) -> float:
        """Cross-entropy of these tokens, (row, place)."""
        return -sum(float(log_chances[row, place - 1, batch["input_ids"][row, place]]) for row, place in of)

    expected = losses((0, 3), (0, 4), (1, 2)) / 3
    assert [float(answers), float(plain), float(same)] == pytest.approx([expected] * 3, rel=1e-5)
    assert float(total) == pytest.approx(expected + 0.25 * losses((0, 1), (0, 2), (1, 1)) / 3, rel=1e-5)


def test_questions_can_be_learnt_too_and_what_is_reported_is_of_answers(base_model: Path, tmp_path: Path) -> None:
    model, taught = load_model(base_model), examples(base_model)
    begun = _question_loss(model, taught)
    outcome = fit(model, taught, plan(tmp_path / "with", 12, question_weight=1.0), lambda: False)
    without = load_model(base_model)
    fit(without, taught, plan(tmp_path / "without", 12), lambda: False)

    assert _question_loss(model, taught) < 0.7 * begun < _question_loss(without, taught)
    assert outcome.loss is not None
    assert outcome.loss < 2 * mean_loss(model, taught, 32) + 0.5  # not the questions' as well, which is above


def _question_loss(network: GPT2LMHeadModel, of: list[Example]) -> float:
    """Cross-entropy of the questions' tokens, per answer token."""
    with torch.no_grad():
        total, answers = AnswerLoss(network, 1.0).eval()(**collate(of), answer_tokens=1)
    return float(total - answers) / sum(len(e.ids) - e.prompt_length for e in of)


def test_hardware_is_chosen_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInputError, match="device is cuda, but torch sees no GPU here"):
        pick("cuda", "auto", 768)
    multiplies = ("amx_tile", "avx512_bf16")
    # x86; elsewhere they are not even listed
    assert set(multiplies) <= set(torch.cpu.get_capabilities()) or platform.machine() != "x86_64"
    for able in multiplies:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda yes=able: {name: name == yes for name in multiplies})
        assert pick("auto", "auto", 768) == Hardware(cuda=False, bf16=True)
        assert not pick("auto", "auto", 128).bf16  # too narrow to pay
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert not pick("auto", "auto", 768).bf16  # emulated, many times slower
    assert pick("cpu", "bf16", 128).bf16
