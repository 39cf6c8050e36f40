"""Cold start, warm tick, memory and size of the packaged functions, in AWS's runtime emulator under Python 3.13.

    make package && python -m benchmarks.functions [--repeat 11] [--json]

The clouds around the functions are a local moto and a local Prometheus of constant answers. A tick's processor time
is that of the function's process, user and kernel, all its threads, from one tick to the next: the runtime's client
and the answer included; waiting for the clouds, and what they, the emulator and this program compute, not. A warm tick
is the wall time of the handler, every exchange with these clouds included. Connections stay open, as AWS and
Prometheus keep them. Every number is the median of --repeat environments, of the
ticks' too: each environment has a median and a p99 of its 120 ticks. Between two ticks a fixed piece of work is timed:
how much its slowest runs differ from its median is the machine's doing, and in the ticks too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

import boto3  # noqa: TID251 - plays the deployment
import msgspec

from infra.package import LIMITS_MB, size_mb
from local.runtimes import ROOT, LambdaRuntime
from shared.contracts import Decision, decode, encode, job_id_for
from shared.promql import METRIC

#: key -> the most it may be; what is printed without a goal is there to compare
GOALS: Final = {
    "schedule_cold_ms": 1200.0,
    "http_cold_ms": 900.0,
    "tick_warm_p99_ms": 250.0,
    "peak_memory_mb": 200.0,
    "aws_unzipped_mb": LIMITS_MB["aws"],
    "aws_zip_mb": LIMITS_MB["aws zip"],
    "azure_mb": LIMITS_MB["azure"],
}
#: one window, so that exactly one of them moves its start and replays all of it
WARM_TICKS: Final = 120
#: as many slots as a tick looks back at
EARLIER_SLOTS: Final = 60
#: what comes after a tick's answer, the runtime's client asking for the next event, is over by then
_SETTLED_S: Final = 0.03
HTTP_EVENT: Final = {
    "version": "2.0",
    "routeKey": "ANY /{proxy+}",
    "rawPath": "/healthz",
    "rawQueryString": "",
    "headers": {"host": "api.example.com"},
    "requestContext": {
        "http": {"method": "GET", "path": "/healthz", "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
        "stage": "$default",
    },
    "isBase64Encoded": False,
}


class _Prometheus(BaseHTTPRequestHandler):
    """Every metric of a range query has a sample per step, an instant query none."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """One query."""
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        data: dict[str, Any] = {"resultType": "vector", "result": []}
        if "start" in asked:
            start, end, step = (float(asked[name][0]) for name in ("start", "end", "step"))
            times = [start + n * step for n in range(int((end - start) / step) + 1)]
            values = {"total": [[at, "0.5"] for at in times], "weight": [[at, "1"] for at in times]}
            names = re.findall(rf'"{METRIC}", "([\w.]+)"', asked["query"][0])
            series = [{"metric": {METRIC: name}, "values": values[name.rpartition(".")[2]]} for name in names]
            data = {"resultType": "matrix", "result": series}
        body = json.dumps({"status": "success", "data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Silent."""


@contextmanager
def constant_prometheus() -> Iterator[str]:
    """The address of a Prometheus for which everything is always 0.5: a healthy service of middling quality."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Prometheus) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def clouds() -> Iterator[dict[str, str]]:
    """A moto with the table and queues of a deployment, and a Prometheus; yields the functions' environment."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from waitress import create_server

    # AWS keeps connections open; moto's own server closes each one after its answer
    server = create_server(DomainDispatcherApplication(create_backend_app), host="127.0.0.1", port=0, threads=8)
    threading.Thread(target=server.run, daemon=True).start()
    env = {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.effective_port}",
        "OPPORTUNE_MODE": "watch",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "POWERTOOLS_TRACE_DISABLED": "true",
    }
    make_resources(env)
    try:
        with constant_prometheus() as url:
            yield {**env, "OPPORTUNE_PROMETHEUS_URL": url}
    finally:
        server.close()


def sdk(service: str, env: Mapping[str, str]) -> Any:
    """A client of the deployment's emulated AWS."""
    return boto3.client(
        service,
        endpoint_url=env["AWS_ENDPOINT_URL"],
        region_name=env["AWS_REGION"],
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )


def make_resources(env: Mapping[str, str]) -> None:
    """Table, queues, bucket and endpoint under the default names."""
    sdk("dynamodb", env).create_table(
        TableName="opportune",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "kind", "KeyType": "HASH"}, {"AttributeName": "key", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "kind", "AttributeType": "S"},
            {"AttributeName": "key", "AttributeType": "S"},
        ],
    )
    for queue in ("opportune-retrain", "opportune-retrain-dlq"):
        sdk("sqs", env).create_queue(QueueName=queue)
    sdk("s3", env).create_bucket(Bucket="opportune")
    role = "arn:aws:iam::123456789012:role/opportune"
    sagemaker = sdk("sagemaker", env)
    sagemaker.create_model(ModelName="m1", ExecutionRoleArn=role, PrimaryContainer={"Image": "opportune"})
    variant = {"VariantName": "m1", "ModelName": "m1", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(EndpointConfigName="m1", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="opportune-qa", EndpointConfigName="m1")


def cold_ms(package: Path, handler: str, event: Any, env: Mapping[str, str], log: Path) -> tuple[float, float]:
    """(milliseconds from the first request to its answer, peak megabytes) of a fresh environment."""
    with LambdaRuntime(package, handler, env, log) as function:
        begun = time.perf_counter()
        function.invoke(event)
        return (time.perf_counter() - begun) * 1e3, function.peak_memory_mb()


class Ticks(NamedTuple):
    """Milliseconds, one entry per warm tick."""

    processor: list[float]
    wall: list[float]  # of the handler, every exchange included
    fixed: list[float]  # of work that is always the same, between two ticks: what the machine makes of it
    peak_mb: float


def warm_ticks(package: Path, env: Mapping[str, str], log: Path, begin_s: float) -> Ticks:
    """Tick after tick in one warm environment.

    The table holds what an hour of ticks leaves there, and every tick has a slot of its own, as in life: one that is
    settled already would be less work. The function is told the time: `begin_s`, and a minute later at every tick.
    """
    table = sdk("dynamodb", env)
    probed = {**env, "PYTHONPATH": f"{package}:{Path(__file__).parent}"}
    with LambdaRuntime(package, "probe.handler", probed, log) as function:
        now_s = itertools.count(begin_s, 60.0)
        last = function.invoke({"now_s": next(now_s)})["decision_id"]
        remember_an_hour(table, last)
        readings, wall, fixed = [], [], []
        for _ in range(10 + WARM_TICKS):
            readings.append(function.processor_ms())
            wall.append(function.invoke({"now_s": next(now_s)})["wall_ms"])
            time.sleep(_SETTLED_S)
            fixed.append(fixed_work_ms())
        readings.append(function.processor_ms())
        processor = [after - before for before, after in itertools.pairwise(readings)]
        return Ticks(processor[10:], wall[10:], fixed[10:], function.peak_memory_mb())


def fixed_work_ms() -> float:
    """Processor time of work that has nothing to do with us and always takes the same, were the machine ours alone."""
    begun = time.thread_time()
    {n: str(n) for n in range(40_000)}
    return (time.thread_time() - begun) * 1e3


def p99(values: list[float]) -> float:
    """The value that 99 of 100 stay below."""
    return sorted(values)[round(0.99 * len(values)) - 1]


def remember_an_hour(table: Any, decision_id: str) -> None:
    """Put copies of a decision into the slots before it."""
    item = table.get_item(TableName="opportune", Key={"kind": {"S": "decision"}, "key": {"S": decision_id}})["Item"]
    last = decode(Decision, item["body"]["B"])
    for back in range(1, EARLIER_SLOTS + 1):
        slot_s = last.slot_s - 60 * back
        earlier = f"decision-{job_id_for(last.service, slot_s)}"
        body = encode(msgspec.structs.replace(last, decision_id=earlier, slot_s=slot_s))
        table.put_item(TableName="opportune", Item={**item, "key": {"S": earlier}, "body": {"B": body}})


def measure(build: Path, repeat: int) -> dict[str, float]:
    """Every number under its name."""
    package = build / "aws"
    with clouds() as env, tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "function.log"
        schedule = [cold_ms(package, "functions.aws.schedule.handler", {}, env, log) for _ in range(repeat)]
        http = [cold_ms(package, "functions.aws.http.handler", HTTP_EVENT, env, log) for _ in range(repeat)]
        ticks = []
        for day in range(1, repeat + 1):  # each a day later: the slots before are its own
            print(f"environment {day} of {repeat}", file=sys.stderr, flush=True)
            ticks.append(warm_ticks(package, env, log, time.time() + 86_400 * day))
    peaks = [mb for _, mb in (*schedule, *http)] + [run.peak_mb for run in ticks]
    return {
        "schedule_cold_ms": statistics.median(ms for ms, _ in schedule),
        "http_cold_ms": statistics.median(ms for ms, _ in http),
        "tick_warm_median_ms": statistics.median(statistics.median(run.wall) for run in ticks),
        "tick_warm_p99_ms": statistics.median(p99(run.wall) for run in ticks),
        "tick_processor_median_ms": statistics.median(statistics.median(run.processor) for run in ticks),
        "tick_processor_p99_ms": statistics.median(p99(run.processor) for run in ticks),
        "fixed_work_median_ms": statistics.median(statistics.median(run.fixed) for run in ticks),
        "fixed_work_p99_ms": statistics.median(p99(run.fixed) for run in ticks),
        "peak_memory_mb": max(peaks),
        "aws_unzipped_mb": size_mb(package),
        "aws_zip_mb": size_mb(build / "aws.zip"),
        "azure_mb": size_mb(build / "azure"),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="where `make package` wrote")
    parser.add_argument("--repeat", type=int, default=11, help="environments; the median counts")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    if not (options.build / "aws.zip").exists() or not (options.build / "azure").exists():
        sys.exit("opportune: no packages there; run `make package` first")
    found = {name: round(value, 1) for name, value in measure(options.build.resolve(), options.repeat).items()}
    if options.json:
        print(msgspec.json.encode(found).decode())
        return
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, medians of {options.repeat}")
    for name, value in found.items():
        goal = GOALS.get(name)
        verdict = f"   goal {goal:>6.0f}   {'ok' if value <= goal else 'MISSED'}" if goal else ""
        print(f"{name:<24} {value:>8.1f}{verdict}")


if __name__ == "__main__":
    main()
