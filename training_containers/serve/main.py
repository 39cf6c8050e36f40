"""`python -m training_containers serve`: options, wiring, life and death of a serving process."""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
import threading
import uuid
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
from training_containers.object_store import FORMS, Store, open_store
from training_containers.serve.agent import Agent, WriteSettings, configuration
from training_containers.serve.app import create_app
from training_containers.serve.feedback_store import FeedbackWriter, Sink
from training_containers.serve.follow import Followed, Follower
from training_containers.serve.metrics import ServingMetrics, Snapshot
from training_containers.serve.model_registry import Registry
from training_containers.serve.scores import RollingScores
from training_containers.serve.server import Server, bind
from training_containers.serve.service import Service
from training_containers.serve.version_cache import VersionCache

log = logging.getLogger(__name__)

_SAGEMAKER_MODEL = Path("/opt/ml/model")


def main(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0 stopped by a signal, 2 wrong input, 1 a crash."""
    try:
        options, settings = parse_arguments(argv, os.environ)
        return _serve(options, settings, WriteSettings.from_env(os.environ))
    except OpportuneError as exc:
        print(f"opportune serve: {exc}", file=sys.stderr)
        return 2
    except OSError as exc:
        print(f"opportune serve: {exc.filename or 'input/output'}: {exc.strerror or exc}", file=sys.stderr)
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
    implied = env.get("AZUREML_MODEL_DIR") or (str(_SAGEMAKER_MODEL) if _SAGEMAKER_MODEL.is_dir() else "")
    parser = _Parser(prog="serve", description="Answer questions with a GPT-2 model over HTTP.", allow_abbrev=False)

    def add(name: str, default: object, text: str, kind: type = str) -> None:
        variable = "OPPORTUNE_SERVE_" + name.upper().replace("-", "_")
        # argparse parses a default that is text, so a wrong variable is refused like a wrong option
        parser.add_argument(f"--{name}", default=env.get(variable, default), type=kind, help=f"{text} [{variable}]")

    add("model", "", "directory, or a model's name on the Hugging Face hub; with a store: until something is released")
    add("store", "", f"where the release, its versions and the labels lie: {FORMS}")
    add("cache", "", "folder for the versions that are served; empty: below the temporary folder")
    add("instance", "", "this process's name in its status and metrics; empty: one of its own")
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
    add("window-pairs", 200, "labelled pairs in the quality window", int)
    add("window-seconds", 600.0, "age of the oldest pair in it; policies know windows of up to 12 slots", float)
    add("feedback-store", None, "where labels go, when not to the store; empty: nowhere")
    add("feedback-seconds", 5.0, "labelled pairs are written this often", float)
    add("feedback-pairs", 2000, "or when so many are waiting", int)
    # no option: the folder is prometheus_client's own
    parser.set_defaults(multiprocess_dir=env.get("PROMETHEUS_MULTIPROC_DIR", ""))
    options = parser.parse_args(list(argv))
    if not options.model and (not options.store or _holds_model(Path(implied))):
        options.model = implied  # the services mount an empty folder, too
    if options.feedback_store is None:
        options.feedback_store = options.store
    if options.cloud not in CLOUDS:
        raise ConfigurationError("--cloud", options.cloud, ", ".join(CLOUDS))
    if not options.model and not options.store:
        raise ConfigurationError("--store", None, f"{FORMS}; or --model, a directory or a name")
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,128}", options.instance):
        raise ConfigurationError("--instance", options.instance, "at most 128 of A-Z a-z 0-9 . _ -")
    for name in ("threads", "max_batch", "max_waiting", "max_new_tokens", "window_pairs", "feedback_pairs"):
        if getattr(options, name) < 1:
            raise ConfigurationError(f"--{name.replace('_', '-')}", str(getattr(options, name)), "a number >= 1")
    return options, msgspec.structs.replace(settings, cloud=options.cloud, service=options.service)


def find_model(name: str) -> Path:
    """The model behind `--model`: a folder, one that holds one model, or a name on the hub.

    Raises:
        ModelError: there is none.
    """
    path = Path(name)
    if path.is_dir():
        # Azure ML mounts the registered folder one or two levels below its variable
        for folder in (path, *sorted(path.glob("*/")), *sorted(path.glob("*/*/"))):
            if (folder / "config.json").is_file():
                return folder
        raise ModelError(f"{path}: no config.json in it; this is not a model directory")
    if path.exists():
        raise ModelError(f"{path}: is a file; a model is a directory with config.json, weights and tokenizer")
    return _download(name)


def _holds_model(path: Path) -> bool:
    try:
        return path.is_dir() and find_model(str(path)).is_dir()
    except ModelError:
        return False


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["config.json", "model.safetensors", "tokenizer.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as exc:
        reason = str(exc).strip().partition("\n")[0]
        raise ModelError(f"{name!r} is no local directory, and the hub does not give it: {reason}") from exc


def _serve(options: argparse.Namespace, settings: Settings, write: WriteSettings | None) -> int:
    listening = bind(options.host, options.port)
    store = open_store(options.store, settings) if options.store else None
    sink: Sink | None = store
    if options.feedback_store != options.store:
        sink = open_store(options.feedback_store, settings, "--feedback-store") if options.feedback_store else None
    log_json(service=options.service, cloud=options.cloud)
    service, follower, instance = build_service(options, store, sink)
    server: Server | None = None
    app = create_app(
        service,
        cloud=options.cloud,
        timeout_s=settings.request_timeout_seconds,
        max_body_bytes=settings.max_body_bytes,
        draining=lambda: server is not None and server.stopping,
        waits_for=lambda: follower.reason if follower else "",
    )
    server = Server(app, listening, options.threads)
    agent = _agent(options, write, server.port, instance) if write else None
    failure: list[OpportuneError] = []
    signalled = threading.Event()

    def begin() -> None:
        """The port answers 503 meanwhile; without a first model, and none to come, there is nothing to serve."""
        if follower:
            follower.look()
        try:
            if options.model and not (follower and follower.released):
                service.registry.load_copy(find_model(options.model), activate=True)
        except OpportuneError as exc:
            failure.append(exc)
        finally:
            if follower and not (options.model and failure):
                follower.start()
            elif service.registry.active is None:
                server.stop()
            bleu1("", ("",))  # imports nltk, so that no feedback has to wait for it, and no answer either

    def stop(_signal: int, _frame: FrameType | None) -> None:
        signalled.set()
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    log.info("listening", extra={"action": "listen", "host": options.host, "port": server.port, "instance": instance})
    threading.Thread(target=begin, name="begin", daemon=True).start()
    if agent:
        agent.start()
    server.run()
    service.close(timeout_s=5.0)
    if follower:
        follower.close()
    if agent:
        agent.stop()
    if failure:
        raise failure[0]
    log.info("stopped", extra={"action": "stop"})
    return 0 if signalled.is_set() else 1


def build_service(
    options: argparse.Namespace, store: Store | None, sink: Sink | None
) -> tuple[Service, Follower | None, str]:
    """Wire the parts of one process; the service, who follows its release, and the process's name."""
    scores = RollingScores(options.window_pairs, options.window_seconds)
    registry = Registry(
        lambda folder: load_engine(folder, options.engine_threads, options.precision, options.int8_agreement),
        max_batch=options.max_batch,
        max_waiting=options.max_waiting,
        max_new_tokens=options.max_new_tokens,
        on_inactive=scores.forget,
    )
    instance = options.instance
    follower: Follower | None = None

    def snapshot() -> Snapshot:
        followed = follower.followed if follower else Followed(0, ())
        return Snapshot(scores.totals(), registry.active, registry.depth, registry.engines(), *followed)

    metrics = ServingMetrics(
        options.service,
        options.cloud,
        snapshot,
        Path(options.multiprocess_dir) if options.multiprocess_dir else None,
    )
    if store is not None:
        cache = VersionCache(Path(options.cache) if options.cache else None)
        instance = instance or cache.instance
        follower = Follower(
            store,
            registry,
            cache,
            service=options.service,
            cloud=options.cloud,
            instance=instance,
            on_error=metrics.follow_error,
        )
    writer = None
    if sink is not None:
        writer = FeedbackWriter(
            sink, options.cloud, metrics, every_s=options.feedback_seconds, every_pairs=options.feedback_pairs
        )
    service = Service(registry, scores, metrics, writer, default_max_new_tokens=options.max_new_tokens)
    return service, follower, instance or uuid.uuid4().hex[:12]


def _agent(options: argparse.Namespace, write: WriteSettings, port: int, instance: str) -> Agent:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(options.host, options.host)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    config = configuration(write, f"{host}:{port}", options.service, options.cloud, instance)
    return Agent(write, config, Path(options.multiprocess_dir) if options.multiprocess_dir else None)


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
