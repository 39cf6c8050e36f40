"""The 8-bit engine: CTranslate2, a quarter of the memory traffic, and integer matrix units do the multiplying.

Weights are int8 with a scale per output channel, activations are quantised token by token, so an answer does not depend
on its batch mates. The converted model is a folder of its own in the artifact. Converting needs torch and transformers,
serving does not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import ctranslate2

from shared.errors import ModelError
from training_containers.serve.text import Bits, TextEngine, threads_for

INT8_FOLDER: Final = "int8"
_WEIGHTS_INT8: Final = "model.bin"


class NotConvertibleError(ModelError):
    """A sound model that CTranslate2 cannot express, such as one whose vocabulary is padded; fp32 serves it."""


def has_int8(model_dir: Path) -> bool:
    """Whether the model brings an 8-bit engine."""
    return (model_dir / INT8_FOLDER / _WEIGHTS_INT8).is_file()


def export_int8(model_dir: Path) -> Path:
    """Write the 8-bit model into a folder beside the weights it is made from; returns the folder.

    Raises:
        NotConvertibleError: CTranslate2 cannot express the model.
        ModelError: the directory is not a complete GPT-2 model, or cannot be written.
    """
    from ctranslate2.converters import TransformersConverter  # imports transformers, which serving does without

    target, scratch = model_dir / INT8_FOLDER, model_dir / f".{INT8_FOLDER}.partial"
    try:
        TransformersConverter(str(model_dir)).convert(str(scratch), quantization="int8", force=True)
        name_special_tokens(scratch)
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
    except ValueError as exc:
        raise NotConvertibleError(f"{model_dir}: not to be had in 8 bits: {str(exc).splitlines()[0]}") from exc
    except (OSError, RuntimeError) as exc:
        raise ModelError(f"{model_dir}: the 8-bit engine cannot be written: {str(exc).splitlines()[0]}") from exc
    return target


def name_special_tokens(folder: Path) -> None:
    """Give a converted model the special tokens its tokenizer lacks: CTranslate2 writes null, and refuses to load it.

    Which token does not matter: every prompt consists of known tokens, and each call says what ends an answer.
    """
    path = folder / "config.json"
    config, words = json.loads(path.read_text()), json.loads((folder / "vocabulary.json").read_text())
    path.write_text(
        json.dumps(
            {name: words[0] if value is None and name.endswith("_token") else value for name, value in config.items()}
        )
    )


class Int8Engine(TextEngine):
    """The 8-bit engine of one model directory."""

    precision: Bits = "int8"

    def __init__(self, model_dir: Path, threads: int = 0) -> None:
        """Load `model_dir`; threads 0 chooses by the model's size.

        Raises:
            ModelError: the directory does not hold a complete GPT-2 model with an 8-bit engine.
        """
        super().__init__(model_dir)
        folder = model_dir / INT8_FOLDER
        try:
            self._generator = ctranslate2.Generator(
                str(folder), device="cpu", compute_type="int8", intra_threads=threads_for(model_dir, threads)
            )
        except (RuntimeError, ValueError) as exc:
            raise ModelError(f"{folder}: CTranslate2 cannot load it: {str(exc).splitlines()[0]}") from exc

    def generate_ids(self, rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """As `TextEngine.generate_ids`."""
        answers: list[list[int]] = [[] for _ in rows]
        # beside a prompt of one token CTranslate2 counts the others' prompts as part of their answers
        for together in (
            [i for i, row in enumerate(rows) if len(row) == 1],
            [i for i, row in enumerate(rows) if row[1:]],
        ):
            if together:
                found = self._generate([rows[i] for i in together], max(limits[i] for i in together))
                for i, ids in zip(together, found, strict=True):
                    # greedy: what a shorter limit cuts off has no influence on what comes before
                    answers[i] = ids[: limits[i]]
        return answers

    def _generate(self, rows: list[Sequence[int]], limit: int) -> list[list[int]]:
        results = self._generator.generate_batch(
            [[self.tokenizer.id_to_token(token) for token in row] for row in rows],
            max_length=limit,
            beam_size=1,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=sorted(self.config.eos_ids),
            return_end_token=True,
        )
        return [result.sequences_ids[0] for result in results]
