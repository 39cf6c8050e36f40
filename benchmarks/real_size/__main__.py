"""From the gate to live on both clouds' stand-ins, at DistilGPT-2's real size (82 M parameters, random weights).

    python -m benchmarks.real_size
    python -m benchmarks.real_size --json
    python -m benchmarks.real_size --size-gb 2 --json     # only the copy between the clouds, of random bytes

Storage is moto and Azurite. A serving container on each follows its release document, one client asks it on and on.
A training job has just succeeded on AWS; the function that its event calls checks the model, copies it and releases
it, in as many invocations as that takes: the first at once, the others a minute after each other, as the tick would.
Every invocation is a process of its own; what only the clouds' management knows is stood in for.

| key | meaning |
|---|---|
| artifact_mb | the files of the model, the 8-bit ones among them |
| function_peak_mb | most memory that any invocation's process ever had resident |
| copy_peak_mb, copy_idle_mb | the same of a process that only copies between the clouds, and before it copies |
| copy_invocations | invocations until the model was whole on both clouds |
| reload_s | from the gate's invocation to the first answer of the new version on the slower of both |
| served_during_reload_failed | requests of that time that got no answer |
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks.real_size.function import dependencies, output_prefix
from benchmarks.real_size.stores import stores
from benchmarks.serving.load import Callers, Server
from benchmarks.serving.models import SHAPES, make_model, make_questions, put_version, stamp
from shared.contracts import (
    CLOUDS,
    IN_FLIGHT,
    Cloud,
    JobRecord,
    JobStatus,
    Metrics,
    TrainingJob,
    encode,
    new_trace_id,
)
from shared.ports import CloudServices
from shared.releases import manifest_key, model_folder, release_key, released
from shared.settings import Settings
from shared.state import State
from training_containers.model.engines.gpt2_graph import export_onnx
from training_containers.model.engines.precision import MIN_QUESTIONS, add_int8
from training_containers.model.prompt import prompt_for

SERVICE: Final = "qa"
#: what the endpoints serve before
OLD: Final = "v1"
NEW: Final = "v2"
#: between two invocations: the tick's schedule
EVERY_S: Final = 60.0
MOST_INVOCATIONS: Final = 30
#: how long a container may take to load the model once it is released
WITHIN_S: Final = 300.0
#: between two requests of a client: the clouds' functions, endpoints and stores share no cores, these do
PAUSE_S: Final = 0.2
_PART: Final = 8 * 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="distilgpt2", help="random weights of this shape")
    parser.add_argument("--size-gb", type=float, help="instead: only copy so many random bytes between the clouds")
    parser.add_argument("--clients", type=int, default=1, help="for each container; each asks on and on")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer")
    parser.add_argument("--threads", type=int, default=1, help="of a container's engine")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, stores(Path(scratch)) as settings:
        if options.size_gb:
            found = copy_random(dependencies(settings).clouds, int(options.size_gb * 1e9))
        else:
            found = release(settings, Path(scratch), options)
    found = {name: round(value, 1) if isinstance(value, float) else value for name, value in found.items()}
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:<28} {value:>10,}")


def release(settings: Settings, scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Two containers that serve the old version, and a job whose model becomes the new one."""
    clouds = dependencies(settings).clouds
    job = _job()
    old, new = _models(scratch, options.shape, job)
    note("uploading")
    put_version(clouds["aws"].objects, old, model_folder(OLD))
    put_version(clouds["aws"].objects, new, output_prefix(job.job_id))
    note("copying the old version to the other cloud")
    copies = _copied("aws", model_folder(OLD), "azure", OLD)
    for services in clouds.values():
        first = released(None, SERVICE, OLD, time.time(), "benchmark")
        services.objects.put_tagged(release_key(SERVICE), encode(first), if_etag=None)
    with ExitStack() as stack:
        note("starting the containers")
        callers = {}
        for cloud in CLOUDS:
            server = _container(settings, cloud, scratch, options.threads)
            stack.callback(server.stop)
            load = Callers(server.port, make_questions(8, 0), options.clients, options.tokens, PAUSE_S)
            callers[cloud] = stack.enter_context(load)
        State(clouds["aws"].documents).claim(JobRecord(job=job, status=JobStatus.TRAINING, updated_s=time.time()))
        begun_s = time.time()
        invocations = _finish(job)
        live_s = {cloud: load.wait_for(NEW, begun_s, WITHIN_S) for cloud, load in callers.items()}
        note(f"live after { ({cloud: round(at_s - begun_s, 1) for cloud, at_s in live_s.items()}) }")
        last = _invoke("finish", job.job_id)
        if last["status"] != JobStatus.LIVE.value:
            raise SystemExit(f"the job is {last['status']}, not live: {last}")
    failed = [failure for load in callers.values() for failure in load.failures if failure[0] >= begun_s]
    if failed:
        note(f"the first request that failed: {failed[0][1]}")
    return {
        "artifact_mb": _size(new) / 1e6,
        "function_peak_mb": max(done["peak_mb"] for done in [*invocations, last]),
        "copy_peak_mb": max(done["peak_mb"] for done in copies),
        "copy_idle_mb": copies[0]["idle_mb"],
        "copy_invocations": len(invocations),
        "reload_s": max(live_s.values()) - begun_s,
        "served_during_reload_failed": len(failed),
    }


def copy_random(clouds: Mapping[Cloud, CloudServices], size: int) -> dict[str, Any]:
    """The copy alone; from Azure's stand-in, which reads a range of an object without the rest of it."""
    source, digest = clouds["azure"].objects, hashlib.sha256()
    key = f"{model_folder(NEW)}model.safetensors"
    note(f"writing {size / 1e9:.1f} GB")
    starts = range(0, size, _PART)
    for number, start in enumerate(starts, start=1):
        body = os.urandom(min(_PART, size - start))
        digest.update(body)
        source.put_part(key, number, body)
    source.finish_parts(key, len(starts))
    with tempfile.TemporaryDirectory() as folder:
        stamp(Path(folder), NEW, files={"model.safetensors": digest.hexdigest()})
        source.put(manifest_key(NEW), (Path(folder) / "manifest.json").read_bytes())
    note("copying")
    copies = _copied("azure", model_folder(NEW), "aws", NEW)
    return {
        "artifact_mb": size / 1e6,
        "copy_peak_mb": max(done["peak_mb"] for done in copies),
        "copy_idle_mb": copies[0]["idle_mb"],
        "copy_invocations": len(copies),
    }


def _job() -> TrainingJob:
    now_s = time.time()
    return TrainingJob(
        job_id="qa-20270115t080000",
        service=SERVICE,
        slot_s=now_s - 600.0,
        cloud="aws",
        trace_id=new_trace_id(),
        decision_id="decision-qa-20270115t080000",
        parent_version=OLD,
        data_start_s=now_s - 86_400.0,
        data_end_s=now_s - 600.0,
        hyperparameters={},
        cost_ceiling_usd=10.0,
        deadline_s=3600.0,
    )


def _models(scratch: Path, shape: str, job: TrainingJob) -> tuple[Path, Path]:
    """Both versions as training leaves them."""
    better, worse = (Metrics(bleu1=q, exact_match=q, f1=q, rouge_l=q, examples=40) for q in (0.8, 0.5))
    trained = {"job_id": job.job_id, "parent_version": OLD, "candidate": better, "serving": worse}
    folders = []
    for seed, (version, fields) in enumerate(((OLD, {}), (NEW, trained)), start=1):
        note(f"making {version}")
        folder = scratch / version
        folder.mkdir()
        make_model(folder, shape, seed)
        export_onnx(folder)
        add_int8(folder, [prompt_for(question) for question in make_questions(MIN_QUESTIONS, seed)])
        stamp(folder, version, **fields)
        folders.append(folder)
    return folders[0], folders[1]


def _container(settings: Settings, cloud: str, scratch: Path, threads: int) -> Server:
    store = f"s3://{settings.bucket}" if cloud == "aws" else f"azure-blob:{settings.container}"
    command = ["training_containers", "serve", "--host", "127.0.0.1", "--engine-threads", str(threads)]
    command += ["--service", SERVICE, "--cloud", cloud, "--store", store]
    return Server([*command, "--cache", str(scratch / f"cache-{cloud}")], threads)


def _finish(job: TrainingJob) -> list[dict[str, Any]]:
    """Invoke the function until both endpoints were asked to serve the model."""
    begun, done = time.monotonic(), list[dict[str, Any]]()
    while len(done) < MOST_INVOCATIONS:
        time.sleep(max(0.0, begun + EVERY_S * len(done) - time.monotonic()))
        done.append(_invoke("finish", job.job_id))
        note(f"invocation {len(done)}: {done[-1]}")
        if len(done[-1]["asked"]) == len(CLOUDS):
            return done
        if JobStatus(done[-1]["status"]) not in IN_FLIGHT:
            break
    raise SystemExit(f"not released: {done[-1]}")


def _copied(source: str, prefix: str, target: str, version: str) -> list[dict[str, Any]]:
    """Copy in as many invocations as it takes."""
    done = list[dict[str, Any]]()
    while len(done) < MOST_INVOCATIONS:
        done.append(_invoke("copy", source, prefix, target, version))
        note(f"invocation {len(done)}: {done[-1]}")
        if not done[-1]["left"]:
            return done
    raise SystemExit(f"not copied: {done[-1]}")


def _invoke(*arguments: str) -> dict[str, Any]:
    """One invocation in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.real_size.function", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {done.returncode}")
    *said, answer = done.stdout.strip().splitlines()
    for line in said:  # the function's own log
        note(line)
    return dict(json.loads(answer))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def note(text: str) -> None:
    """Progress goes to stderr, so that --json stays JSON."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
