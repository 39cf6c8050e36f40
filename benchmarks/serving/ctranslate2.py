"""CTranslate2 as its documentation uses it: Flask in front, one call for each request."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import ctranslate2
import waitress
from flask import Flask, Response, jsonify, request
from tokenizers import Tokenizer

from training_containers.model.prompt import prompt_for

GenerateIds = Callable[[Sequence[Sequence[int]], Sequence[int]], list[list[int]]]


def generator_of(model: Path, precision: str, threads: int) -> GenerateIds:
    """Greedy continuation of many prompts.

    Shapes: rows of token ids, new tokens each -> new token ids.
    """
    kind = "int8" if precision == "int8" else "float32"
    generator = ctranslate2.Generator(str(folder_for(model, precision)), compute_type=kind, intra_threads=threads)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    def generate_ids(rows: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        found = generator.generate_batch(
            [[tokenizer.id_to_token(token) for token in row] for row in rows],
            max_length=max(limits),
            beam_size=1,
            sampling_topk=1,
            include_prompt_in_result=False,
            return_end_token=True,
        )
        return [result.sequences_ids[0][:limit] for result, limit in zip(found, limits, strict=True)]

    return generate_ids


def folder_for(model: Path, precision: str) -> Path:
    """Where `convert` leaves the model."""
    return model.with_name(f"ctranslate2-{precision}")


def convert(model: Path) -> None:
    """Write the model in both precisions beside the artifact."""
    from ctranslate2.converters import TransformersConverter

    for precision, quantization in (("fp32", None), ("int8", "int8")):
        folder = folder_for(model, precision)
        TransformersConverter(str(model)).convert(str(folder), quantization=quantization, force=True)
        # it writes null for special tokens the tokenizer lacks, and refuses to load that; which one does not matter
        path = folder / "config.json"
        config, words = json.loads(path.read_text()), json.loads((folder / "vocabulary.json").read_text())
        named = {
            name: words[0] if value is None and name.endswith("_token") else value for name, value in config.items()
        }
        path.write_text(json.dumps(named))


def main() -> None:
    """Serve --model on --port."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--precision", choices=("fp32", "int8"), required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    generate_ids = generator_of(options.model, options.precision, options.threads)
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    app = Flask("ctranslate2")

    @app.post("/predict")
    def predict() -> Response:
        body = request.get_json()
        row = tokenizer.encode(prompt_for(body["question"])).ids
        (new,) = generate_ids([row], [body["max_new_tokens"]])
        return jsonify(answer=tokenizer.decode(new).strip())

    waitress.serve(app, host="127.0.0.1", port=options.port, threads=32, _quiet=True)


if __name__ == "__main__":
    main()
