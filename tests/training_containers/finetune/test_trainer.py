from pathlib import Path

import pytest

from shared.contracts import FeedbackPair
from shared.errors import InvalidInputError
from tests.training_containers.finetune.conftest import drifted
from training_containers.finetune.answer_loss import mean_loss
from training_containers.finetune.encoding import Example, encode_pairs, load_tokenizer
from training_containers.finetune.hardware import Hardware, pick
from training_containers.finetune.model import load_model
from training_containers.finetune.trainer import Plan, fit


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


def test_hardware_is_chosen_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidInputError, match="device is cuda, but torch sees no GPU here"):
        pick("cuda", "auto", 768)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert pick("auto", "auto", 768) == Hardware(cuda=False, bf16=True)
    assert not pick("auto", "auto", 128).bf16  # too narrow to pay
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not pick("auto", "auto", 768).bf16  # emulated, many times slower
    assert pick("cpu", "bf16", 128).bf16
