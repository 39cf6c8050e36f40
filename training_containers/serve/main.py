"""`python -m training_containers serve`: options, wiring, life and death of a serving process."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

import msgspec

from shared.contracts import CLOUDS
from shared.errors import ConfigurationError, InvalidInputError, ModelError, OpportuneError
from shared.logs import log_json
from shared.settings import Settings
from training_containers.model.engines.precision import DEFAULT_BOUND, Wanted, load_engine
from training_containers.model.prompt import MAX_NEW_TOKENS
from training_containers.model.scoring import bleu1
from training_containers.serve.app import create_app
from training_containers.serve.feedback_store import FeedbackWriter, Sink, open_sink
from training_containers.serve.metrics import ServingMetrics, Snapshot
from training_containers.serve.model_registry import Registry
from training_containers.serve.scores import RollingScores
from training_containers.serve.server import Server, bind
from training_containers.serve.service import Service

log = logging.getLogger(__name__)

_SAGEMAKER_MODEL = Path("/opt/ml/model")


def main(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0 stopped by a signal, 2 wrong input, 1 a crash."""
    try:
        options, settings = parse_arguments(argv, os.environ)
        return _serve(options, settings)
    except OpportuneError as exc:
        print(f"opportune serve: {exc}", file=sys.stderr)
        return 2


def parse_arguments(argv: Sequence[str], env: Mapping[str, str]) -> tuple[argparse.Namespace, Settings]:
    """Options; each falls back to OPPORTUNE_SERVE_<OPTION>, then to what SageMaker or Azure ML imply.

    Raises:
        InvalidInputError: an option or variable is wrong.
    """
    settings = Settings.from_env(env)
    on_azureml = "AZUREML_MODEL_DIR" in env
    cloud = env.get("OPPORTUNE_CLOUD") or ("azure" if on_azureml else "aws")
    port = 5001 if on_azureml else _number(env, "SAGEMAKER_BIND_TO_PORT", 8080)
    model = env.get("AZUREML_MODEL_DIR") or (str(_SAGEMAKER_MODEL) if _SAGEMAKER_MODEL.is_dir() else "")
    parser = _Parser(prog="serve", description="Answer questions with a GPT-2 model over HTTP.", allow_abbrev=False)

    def add(name: str, default: object, text: str, kind: type = str) -> None:
        variable = "OPPORTUNE_SERVE_" + name.upper().replace("-", "_")
        # argparse parses a default that is text, so a wrong variable is refused like a wrong option
        parser.add_argument(f"--{name}", default=env.get(variable, default), type=kind, help=f"{text} [{variable}]")

    add("model", model, "directory, model.tar.gz, or a model's name on the Hugging Face hub")
    add("host", "0.0.0.0", "address to listen on")
    add("port", port, "port to listen on; 0 chooses a free one", int)
    add("cloud", cloud, "aws or azure: a label of every metric and answer")
    add("service", settings.service, "service name: a label of every metric")
    add("threads", 64, "request threads", int)
    add("engine-threads", 0, "threads per model; 0 chooses by its size", int)
    add("precision", "auto", "auto, int8 or fp32; 8-bit is only ever used where its answers agree with fp32", Wanted)
    add("int8-agreement", DEFAULT_BOUND, "share of evaluation answers 8-bit must give as fp32 does", float)
    add("max-batch", 16, "most requests answered together", int)
    add("max-waiting", 32, "most requests waiting; further ones get 429", int)
    add("max-new-tokens", MAX_NEW_TOKENS, "tokens per answer unless the request says otherwise", int)
    add("keep", 2, "loaded versions kept", int)
    add("window-pairs", 200, "labelled pairs in the quality window", int)
    add("window-seconds", 600.0, "age of the oldest pair in it; policies know windows of up to 12 slots", float)
    add("feedback-store", "", "dir:PATH, s3://bucket/prefix or azure-blob:container/prefix; empty: not stored")
    add("feedback-seconds", 5.0, "labelled pairs are written this often", float)
    add("feedback-pairs", 64, "or when so many are waiting", int)
    # no options: a token on a command line can be read by others, and the folder is prometheus_client's own
    parser.set_defaults(
        admin_token=env.get("OPPORTUNE_ADMIN_TOKEN", ""), multiprocess_dir=env.get("PROMETHEUS_MULTIPROC_DIR", "")
    )
    options = parser.parse_args(list(argv))
    if options.cloud not in CLOUDS:
        raise ConfigurationError("--cloud", options.cloud, ", ".join(CLOUDS))
    if not options.model:
        raise ConfigurationError("--model", None, "a model directory, model.tar.gz, or name")
    for name in ("threads", "max_batch", "max_waiting", "max_new_tokens", "keep", "window_pairs", "feedback_pairs"):
        if getattr(options, name) < 1:
            raise ConfigurationError(f"--{name.replace('_', '-')}", str(getattr(options, name)), "a number >= 1")
    return options, msgspec.structs.replace(settings, cloud=options.cloud, service=options.service)


def find_model(name: str) -> Path:
    """The artifact behind `--model`: a path, a folder that holds one model, or a name on the hub.

    Raises:
        ModelError: there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        # Azure ML mounts the registered folder one or two levels below its variable
        for folder in (path, *sorted(path.glob("*/")), *sorted(path.glob("*/*/"))):
            if (folder / "config.json").is_file() or (folder / "model.tar.gz").is_file():
                return folder
        raise ModelError(f"{path}: no config.json and no model.tar.gz in it; this is not a model directory")
    return _download(name)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["config.json", "model.safetensors", "tokenizer.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as exc:
        reason = str(exc).strip().partition("\n")[0]
        raise ModelError(f"{name!r} is no local directory, and the hub does not give it: {reason}") from exc


def _serve(options: argparse.Namespace, settings: Settings) -> int:
    listening = bind(options.host, options.port)
    sink = open_sink(options.feedback_store, settings) if options.feedback_store else None
    log_json(service=options.service, cloud=options.cloud)
    service = build_service(options, sink)
    server: Server | None = None
    app = create_app(
        service,
        cloud=options.cloud,
        admin_token=options.admin_token,
        timeout_s=settings.request_timeout_seconds,
        max_body_bytes=settings.max_body_bytes,
        draining=lambda: server is not None and server.stopping,
    )
    server = Server(app, listening, options.threads)
    failure: list[OpportuneError] = []
    signalled = threading.Event()

    def load() -> None:
        """The port answers 503 meanwhile; without a first model there is nothing to serve."""
        try:
            service.registry.load(find_model(options.model), activate=True)
        except OpportuneError as exc:
            failure.append(exc)
        finally:
            if service.registry.active is None:
                server.stop()
            else:
                bleu1("", ("",))  # imports nltk, so that no feedback has to wait for it, and no answer either

    def stop(_signal: int, _frame: FrameType | None) -> None:
        signalled.set()
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    log.info("listening", extra={"action": "listen", "host": options.host, "port": server.port})
    threading.Thread(target=load, name="load-first", daemon=True).start()
    server.run()
    service.close(timeout_s=5.0)
    if failure:
        raise failure[0]
    log.info("stopped", extra={"action": "stop"})
    return 0 if signalled.is_set() else 1


def build_service(options: argparse.Namespace, sink: Sink | None) -> Service:
    """Wire the parts of one process."""
    scores = RollingScores(options.window_pairs, options.window_seconds)
    registry = Registry(
        lambda folder: load_engine(folder, options.engine_threads, options.precision, options.int8_agreement),
        keep=options.keep,
        max_batch=options.max_batch,
        max_waiting=options.max_waiting,
        on_inactive=scores.forget,
    )
    metrics = ServingMetrics(
        options.service,
        options.cloud,
        lambda: Snapshot(scores.totals(), registry.active, registry.depth, registry.engines()),
        Path(options.multiprocess_dir) if options.multiprocess_dir else None,
    )
    writer = None
    if sink is not None:
        writer = FeedbackWriter(
            sink, options.cloud, metrics, every_s=options.feedback_seconds, every_pairs=options.feedback_pairs
        )
    return Service(registry, scores, metrics, writer, default_max_new_tokens=options.max_new_tokens)


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing usage: a wrong option is one line."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise InvalidInputError(message)


def _number(env: Mapping[str, str], variable: str, default: int) -> int:
    raw = env.get(variable, str(default))
    if not raw.isdigit():
        raise ConfigurationError(variable, raw, "a port number")
    return int(raw)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
