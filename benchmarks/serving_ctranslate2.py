"""CTranslate2 behind the same HTTP server and batcher as ours, for comparison (pip extra `bench`)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import ctranslate2
import waitress
from flask import Flask, Response, jsonify, request
from tokenizers import Tokenizer

from training_containers.prompt import prompt_for
from training_containers.serve.batcher import Batcher
from training_containers.serve.engine import Answer, Bits


def convert(model_dir: Path, out: Path, precision: str) -> Path:
    """`model_dir` in CTranslate2's format; precision is fp32 or int8."""
    from ctranslate2.converters import TransformersConverter  # imports transformers, which serving does not need

    quantization = "int8" if precision == "int8" else None
    TransformersConverter(str(model_dir)).convert(str(out), quantization=quantization, force=True)
    return out


class Ctranslate2Engine:
    """Our engine's interface over a converted model."""

    precision: Bits = "int8"
    agreement: float | None = None

    def __init__(self, model_dir: Path, converted: Path, threads: int) -> None:
        self.tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        self._generator = ctranslate2.Generator(str(converted), device="cpu", intra_threads=threads, inter_threads=1)

    def check(self, prompt: str, max_new_tokens: int) -> None:
        """Every prompt of the benchmark fits."""

    def generate_ids(self, rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """Greedy continuations; all limits must be the same."""
        tokens = [[self.tokenizer.id_to_token(i) for i in row] for row in rows]
        results = self._generator.generate_batch(
            tokens, max_length=limits[0], sampling_topk=1, include_prompt_in_result=False
        )
        return [list(result.sequences_ids[0]) for result in results]

    def generate(self, prompts: Sequence[str], max_new_tokens: int | Sequence[int]) -> list[Answer]:
        """As our engine does."""
        limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        found = self.generate_ids([self.tokenizer.encode(p).ids for p in prompts], limits)
        return [Answer(self.tokenizer.decode(ids), tuple(ids), False) for ids in found]


def main() -> None:
    """Serve --converted on --port."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--converted", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    batcher = Batcher(Ctranslate2Engine(options.model, options.converted, options.threads))
    app = Flask("ctranslate2")

    @app.post("/predict")
    def predict() -> Response:
        body = request.get_json()
        return jsonify(answer=batcher.answer(prompt_for(body["question"]), body["max_new_tokens"], 60).text)

    waitress.serve(app, host="127.0.0.1", port=options.port, threads=32, _quiet=True)


if __name__ == "__main__":
    main()
