"""CTranslate2 as its documentation uses it: Flask in front, one call for each request."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import ctranslate2
import waitress
from flask import Flask, Response, jsonify, request
from tokenizers import Tokenizer

from training_containers.prompt import prompt_for
from training_containers.serve.int8 import INT8_FOLDER, name_special_tokens

GenerateIds = Callable[[Sequence[Sequence[int]], Sequence[int]], list[list[int]]]


def generator_of(model: Path, precision: str, threads: int) -> GenerateIds:
    """Greedy continuation of many prompts; the model's 8-bit file is computed with in 8 bits, or the fp32 one in fp32.

    Shapes: rows of token ids, new tokens each -> new token ids.
    """
    folder = model / INT8_FOLDER if precision == "int8" else fp32_folder(model)
    generator = ctranslate2.Generator(
        str(folder), compute_type="int8" if precision == "int8" else "float32", intra_threads=threads
    )
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


def fp32_folder(model: Path) -> Path:
    """Where `convert` leaves the fp32 model."""
    return model.with_name("ctranslate2-fp32")


def convert(model: Path) -> None:
    """Write the fp32 model beside the artifact; the 8-bit one is part of it."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(model)).convert(str(fp32_folder(model)), force=True)
    name_special_tokens(fp32_folder(model))


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
