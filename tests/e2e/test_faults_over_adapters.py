"""Ticks, starts and events over the real adapters, while the services behind them answer late, in drips, or wrongly.

Storage and queues are moto and Azurite, SageMaker and Azure ML stand-ins. Every request passes a `Front`, which answers
as the test wants: nothing, a byte a second, an error, a page, or the right answer that gets lost on its way back.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import os
import re
import secrets
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import msgspec
import pytest
import urllib3

from functions import bootstrap
from functions.clouds import Deps
from functions.retraining.job_message import training_job
from functions.retraining.start import Outcome, start_training
from functions.scheduling.tick import tick, training_finished
from local.clouds.azure.storage import connection_string
from policy.decide import load_policy
from shared.contracts import Action, Decision, FeedbackPair, JobRecord, JobStatus, encode, job_id_for
from shared.errors import ConflictError, UnavailableError
from shared.settings import Settings
from shared.state import State
from tests.fakes import MemoryFleet, MemoryMetrics
from tests.functions.conftest import metric_window, metrics_of

pytestmark = [pytest.mark.xdist_group("clouds"), pytest.mark.slow, pytest.mark.timeout(900)]

NOW = 1_800_000_000.0
MARK = "planted by the test"
#: the limit of one call, and of a run
CALL_S, RUN_S = 1.0, 10.0
OTHER = {"aws": "azure", "azure": "aws"}


# --- servers


class Asked(NamedTuple):
    method: str
    path: str
    headers: Any
    body: bytes


class Reply(NamedTuple):
    status: int
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012
    manner: str = ""  # "late", "drips", "drips from the first byte", "silent", "broken"


class Front:
    """A server between an SDK and what answers it."""

    def __init__(self):
        self.answer = None  # Asked -> Reply
        self.fault = None  # Asked, () -> Reply: instead
        self.over = threading.Event()
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked, over = Asked(self.command, self.path, self.headers, body), front.over
                usual = functools.partial(front.answer, asked)
                reply = front.fault(asked, usual) if front.fault else usual()
                with contextlib.suppress(OSError):
                    self.send(reply, over)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_MERGE = do_PATCH = handle_one

            def send(self, reply, over):
                if reply.manner in ("silent", "late"):
                    over.wait(30.0 if reply.manner == "silent" else 3 * CALL_S)
                if reply.manner in ("silent", "broken"):
                    self.close_connection = True
                    return
                headers = {"Content-Length": str(len(reply.body)), **reply.headers}
                head = f"HTTP/1.1 {reply.status} x\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
                raw = head.encode("latin-1") + (b"" if self.command == "HEAD" else reply.body)
                at_once = {"drips": len(head), "drips from the first byte": 0}.get(reply.manner, len(raw))
                self.wfile.write(raw[:at_once])
                for n in range(at_once, len(raw)):
                    if over.wait(1.0):
                        self.close_connection = True
                        return
                    self.wfile.write(raw[n : n + 1])

            def log_message(self, *_):
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def mend(self):
        """Answer rightly again; let go whoever still waits."""
        self.fault = None
        self.over.set()
        self.over = threading.Event()

    def close(self):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()


def passing(address):
    """What a server at this address answers."""
    pool = urllib3.PoolManager(maxsize=16)
    dropped = {"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"}

    def answer(asked):
        told = pool.request(
            asked.method, address + asked.path, body=asked.body, headers=dict(asked.headers.items()), retries=False,
            decode_content=False, redirect=False,
        )  # fmt: skip
        kept = {name: value for name, value in told.headers.items() if name.lower() not in dropped}
        return Reply(told.status, told.data, kept)

    return answer


def as_json(status, told):
    return Reply(status, json.dumps(told).encode(), {"Content-Type": "application/x-amz-json-1.1"})


class SageMaker:
    """Just enough of it: training jobs, and one endpoint that nobody may change. `says` replaces an answer."""

    def __init__(self):
        self.jobs, self.asked, self.says, self.created = {}, Counter(), {}, Counter()
        self.endpoint = {
            "EndpointArn": "arn:e", "EndpointStatus": "InService", "EndpointConfigName": "first",
            "ProductionVariants": [{"VariantName": "AllTraffic", "CurrentWeight": 1.0}],
        }  # fmt: skip

    def __call__(self, asked):
        operation, told = asked.headers["X-Amz-Target"].partition(".")[2], json.loads(asked.body)
        self.asked[operation] += 1
        if operation in self.says:
            found = self.says[operation]
            return found(told) if callable(found) else found
        return getattr(self, operation)(told)

    def CreateTrainingJob(self, told):
        name = told["TrainingJobName"]
        if name in self.jobs:
            return refused("ResourceInUse", "Job name must be unique")
        self.created[name] += 1
        self.jobs[name] = {"TrainingJobStatus": "InProgress", "SecondaryStatus": "Starting"}
        return as_json(200, {"TrainingJobArn": f"arn:{name}"})

    def DescribeTrainingJob(self, told):
        found = self.jobs.get(told["TrainingJobName"])
        return as_json(200, found) if found else refused("ValidationException", "Requested resource not found.")

    def StopTrainingJob(self, told):
        return as_json(200, {})

    def DescribeEndpoint(self, told):
        return as_json(200, self.endpoint) if self.endpoint else refused("ValidationException", "Could not find it.")

    def train(self, job_id, **changes):
        """The job as it ended."""
        self.jobs[job_id] = {
            "TrainingJobStatus": "Completed", "SecondaryStatus": "Completed", "TrainingStartTime": NOW - 50,
            "TrainingEndTime": NOW - 20,
            "ModelArtifacts": {"S3ModelArtifacts": f"s3://opportune/jobs/{job_id}/output/model/"},
        } | changes  # fmt: skip


def refused(code, message=MARK, status=400):
    return as_json(status, {"__type": code, "message": message})


class AzureML:
    """Just enough of it: jobs, and an endpoint that nobody may change. `says`: (method, path's beginning) -> Reply."""

    def __init__(self):
        self.things, self.asked, self.says, self.created = {}, Counter(), {}, Counter()
        path, properties = "onlineEndpoints/opportune-qa", {"provisioningState": "Succeeded"}
        self.things[path] = {"properties": {"traffic": {"blue": 100}, "scoringUri": "https://x/score", **properties}}
        self.things[f"{path}/deployments/blue"] = {"name": "blue", "properties": properties}

    def __call__(self, asked):
        path = asked.path.partition("?")[0].partition("/workspaces/opportune/")[2]
        self.asked[asked.method, path.split("/")[0] + ("/deployments" if "/deployments/" in path else "")] += 1
        for (method, start), reply in self.says.items():
            if asked.method == method and path.startswith(start):
                return reply() if callable(reply) else reply
        if asked.method == "POST":
            return Reply(202)
        if asked.method == "PUT":
            assert path.startswith("jobs/"), f"nobody may change {path}"
            self.created[path[5:]] += path not in self.things
            sent, name = json.loads(asked.body), path.rpartition("/")[2]
            self.things[path] = {"name": name, "properties": {**sent.get("properties", {}), "status": "Running"}}
            return as_json(201, self.things[path])
        if path.endswith("/deployments"):
            return as_json(200, {"value": [v for k, v in self.things.items() if k.startswith(f"{path}/")]})
        return as_json(200, self.things[path]) if path in self.things else ml_error(404, "NotFound", f"no {path}")

    def train(self, job_id, **changes):
        """The job as it ended."""
        times = {"StartTimeUtc": "2027-01-15 07:59:10", "EndTimeUtc": "2027-01-15 07:59:40"}
        self.things[f"jobs/{job_id}"] = {"properties": {"status": "Completed", "properties": times} | changes}


def ml_error(status, code, message=MARK):
    return as_json(status, {"error": {"code": code, "message": message}})


# --- the bench: fronts, adapters, and a fresh service for each cell


@dataclasses.dataclass
class Bench:
    fronts: dict[str, Front]
    connection: str
    artifact: Any
    numbers: Any = dataclasses.field(default_factory=itertools.count)

    def fresh(self, lead="aws", policy="always", **changes):
        """A service that nothing is known of yet."""
        for front in self.fronts.values():
            front.mend()
        sagemaker, azureml = SageMaker(), AzureML()
        self.fronts["sagemaker"].answer, self.fronts["ml"].answer = sagemaker, azureml
        settings = Settings(
            **{
                "service": f"f{secrets.token_hex(4)}x{next(self.numbers)}", "cloud": lead, "scheduler": lead,
                "azure_storage_connection": self.connection, "azureml_token": "t0k", "min_new_pairs": 4,
                "azureml_url": f"http://127.0.0.1:{self.fronts['ml'].port}", "cooldown_slots": 0.0,
                "tick_deadline_seconds": RUN_S,
            } | changes
        )  # fmt: skip
        clouds = {cloud: bootstrap.cloud_services(cloud, settings) for cloud in ("aws", "azure")}
        case = Case(self, settings, clouds, sagemaker, azureml, load_policy(policy))
        case.follow()
        return case


@dataclasses.dataclass
class Case:
    bench: Bench
    settings: Settings
    clouds: dict[str, Any]
    sagemaker: SageMaker
    azureml: AzureML
    policy: Any
    call_s: float = 5.0
    fleets: dict[str, MemoryFleet] = dataclasses.field(init=False)

    def __post_init__(self):
        self.fleets = {
            cloud: MemoryFleet(services.objects, service=self.settings.service, cloud=cloud)
            for cloud, services in self.clouds.items()
        }

    def follow(self):
        """Every instance looks at its cloud's release document, and tells what it has loaded."""
        for fleet in self.fleets.values():
            fleet.state()

    def deps(self, cloud):
        return Deps(
            settings=msgspec.structs.replace(self.settings, cloud=cloud),
            clouds=self.clouds,
            metrics=lambda: MemoryMetrics(metric_window(NOW), {}),
            policy=lambda: self.policy,
            call_s=self.call_s,
        )

    def state(self, cloud):
        return State(self.clouds[cloud].documents)

    def stand_in(self, cloud):
        return self.sagemaker if cloud == "aws" else self.azureml

    @property
    def job_id(self):
        return job_id_for(self.settings.service, NOW)

    def message(self, cloud, slot_s=NOW, also_in=()):
        """The job of a decision recorded in `cloud`."""
        job_id, action = job_id_for(self.settings.service, slot_s), Action.for_cloud(cloud)
        decision = Decision(
            decision_id=f"decision-{job_id}", service=self.settings.service, slot_s=slot_s, decided_by=cloud,
            mode="act", action=action, wanted=action, probabilities=(), guardrails=(), observation={},
            attributions={}, policy="always", policy_sha256="", trace_id="a" * 32, reason="", job_id=job_id,
        )  # fmt: skip
        for name in (cloud, *also_in):
            self.clouds[name].documents.put("decision", decision.decision_id, encode(decision))
        return training_job(msgspec.structs.replace(self.settings, cloud=cloud), decision, cloud, "base")

    def training(self, cloud, slot_s=NOW - 60):
        """A job that its training service has been given."""
        job = self.message(cloud, slot_s)
        record = JobRecord(job=job, status=JobStatus.TRAINING, updated_s=slot_s, started_s=slot_s)
        self.state(cloud).claim(record)
        return job.job_id

    def trained(self, cloud):
        """A job that has just trained a better model."""
        job_id = self.training(cloud)
        self.stand_in(cloud).train(job_id)
        for name, body in self.bench.artifact(job_id, self.settings.service).items():
            folder = "output/model" if cloud == "aws" else "model"
            self.clouds[cloud].objects.put(f"jobs/{job_id}/{folder}/{name}", body)
        return job_id

    def record(self, cloud, job_id):
        return self.state(cloud).job(job_id).record

    def run(self, cloud, times, every_s=60.0, start=0):
        """Ticks, one a slot; how many there were."""
        for slot in range(start, start + times):
            tick(self.deps(cloud), NOW + every_s * slot)
            self.follow()
        return start + times


@pytest.fixture(scope="module")
def bench(moto, azurite, a_manifest):
    patch, fronts = pytest.MonkeyPatch(), {}
    behind = dict.fromkeys(("dynamodb", "s3", "sqs"), os.environ["AWS_ENDPOINT_URL"])
    for part in ("blob", "queue", "table"):
        found = re.search(rf"{part}Endpoint=(http://127.0.0.1:\d+)", azurite.azure_storage_connection, re.I)
        behind[part] = found[1]
    for name in ("dynamodb", "s3", "sqs", "sagemaker", "blob", "queue", "table", "ml"):
        fronts[name] = Front()
        fronts[name].answer = passing(behind[name]) if name in behind else None
    for name in ("dynamodb", "s3", "sqs", "sagemaker"):
        patch.setenv(f"AWS_ENDPOINT_URL_{name.upper()}", f"http://127.0.0.1:{fronts[name].port}")
    bootstrap.aws_session.cache_clear()

    def artifact(job_id, service):
        weights = b"weights of " + job_id.encode()
        manifest = a_manifest(
            model_version="m" + hashlib.sha256(job_id.encode()).hexdigest()[:10], job_id=job_id, service=service,
            candidate=metrics_of(0.8), serving=metrics_of(0.5),
            files={"model.safetensors": hashlib.sha256(weights).hexdigest()},
        )  # fmt: skip
        return {"model.safetensors": weights, "manifest.json": encode(manifest)}

    made = Bench(fronts, connection_string(fronts["blob"].port, fronts["queue"].port, fronts["table"].port), artifact)
    pairs = [FeedbackPair(question=f"question {n}", answers=("a",), received_s=NOW - 600 + n) for n in range(10)]
    for cloud, services in made.fresh().clouds.items():
        services.objects.put(
            f"feedback/{cloud}/20270115T075500-1.jsonl", b"".join(encode(pair) + b"\n" for pair in pairs)
        )
    yield made
    for front in fronts.values():
        front.close()
    patch.undo()
    bootstrap.aws_session.cache_clear()


# --- the matrix


def error(service, status, code, **headers):
    """A status in the service's own form."""
    if service in ("dynamodb", "sqs", "sagemaker"):
        return refused(code, status=status)._replace(headers=headers)
    if service == "ml":
        return ml_error(status, code)._replace(headers={"Content-Type": "application/json", **headers})
    if service == "table":
        told = json.dumps({"odata.error": {"code": code, "message": {"lang": "en-US", "value": MARK}}}).encode()
        return Reply(status, told, {"Content-Type": "application/json", **headers})
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{MARK}</Message></Error>".encode()
    return Reply(status, body, {"Content-Type": "application/xml", "x-ms-error-code": code, **headers})


PAGE = Reply(200, b"<!DOCTYPE html><html><body>Sign in</body></html>", {"Content-Type": "text/html"})


def always(make):
    return lambda service: lambda asked, usual: make(service)


def manner(how):
    return lambda service: lambda asked, usual: usual()._replace(manner=how)


def lost(status, how=""):
    """Done, and the answer gets lost: the first time that each thing is written."""

    def fault(service):
        seen = set()

        def answer(asked, usual):
            reply = usual()
            key = (asked.method, asked.path, hashlib.sha256(asked.body).digest())
            written = asked.method != "GET" and b"ConsistentRead" not in asked.body and reply.status < 300
            if not written or key in seen:
                return reply
            seen.add(key)
            return error(service, status, "InternalServerError")._replace(manner=how)

        return answer

    return fault


def without(*fields):
    """Answers in which these fields are missing, at any depth."""

    def drop(told):
        if isinstance(told, dict):
            return {k: drop(v) for k, v in told.items() if k not in fields}
        return [drop(v) for v in told] if isinstance(told, list) else told

    return altered(drop)


def altered(change):
    def fault(service):
        def answer(asked, usual):
            reply = usual()
            try:
                return reply._replace(body=json.dumps(change(json.loads(reply.body))).encode())
            except ValueError:
                return reply

        return answer

    return fault


def renamed(told):
    """States that nobody knows, and dates in a form of their own."""
    if isinstance(told, dict):
        return {k: "Tuesday, half past nine" if "Time" in k else "Pondering" if "tatus" in k or k == "provisioningState"
                else renamed(v) for k, v in told.items()}  # fmt: skip
    return [renamed(v) for v in told] if isinstance(told, list) else told


SLOW = {
    "never answers": (lambda service: lambda asked, usual: Reply(200, manner="silent"), "no answer within"),
    "answers late": (manner("late"), "no answer within"),
    "drips its body": (manner("drips"), "no answer within"),
    "drips from the first byte": (manner("drips from the first byte"), "no answer within"),
}
FAST = {
    "400": (always(lambda s: error(s, 400, "ValidationException")), MARK),
    "403": (always(lambda s: error(s, 403, "AccessDeniedException")), MARK),
    "429, Retry-After: 20": (always(lambda s: error(s, 429, "ThrottlingException", **{"Retry-After": "20"})), MARK),
    "503, Retry-After: 20": (always(lambda s: error(s, 503, "ServerBusy", **{"Retry-After": "20"})), MARK),
    "a page": (always(lambda s: PAGE), "page|JSON|cannot be used|unavailable"),
    "a page, 404": (always(lambda s: PAGE._replace(status=404)), "HTTP 404"),
    "{}": (always(lambda s: Reply(200, b"{}", {"Content-Type": "application/json"})), "cannot be used|unavailable"),
    "breaks the connection": (manner("broken"), "unavailable"),
    "done, then 500": (lost(500), ""),
}
STRANGE = {
    "fields are missing": (without("TrainingJobStatus", "EndpointStatus", "properties", "Items", "Responses"), "used"),
    "unknown states, other dates": (altered(renamed), "Pondering"),
}
AWS, AZURE = ("dynamodb", "s3", "sqs", "sagemaker"), ("table", "blob", "queue", "ml")
CLOUD = dict.fromkeys(AWS, "aws") | dict.fromkeys(AZURE, "azure")
SCENES = {"dynamodb": "decide", "table": "decide", "sqs": "decide", "queue": "decide"}


def ways(service, flow):
    """Which to try: all of the fast ones, and two of the slow ones in turn."""
    turn = sorted(CLOUD).index(service) + (flow == "start")
    slow = list(SLOW.items())
    found = dict([slow[turn % 4], slow[(turn + 2) % 4]]) | FAST
    if service in ("sagemaker", "ml") and flow != "start":
        found |= STRANGE
    if service in ("dynamodb", "table") and flow == "start":
        del found["{}"]  # which is DynamoDB's answer for what is not there, and for what was written
    return found


def told(case, caplog):
    """Everything that anybody wrote down."""
    words = [f"{r.message} {getattr(r, 'reason', '')}" for r in caplog.records]
    for cloud in case.clouds:
        found = case.state(cloud).decision(f"decision-{case.job_id}")
        words += [str(found.conditions)] if found else []
        words += [f"{r.reason} {r.waits} {r.refused}" for r in case.state(cloud).jobs(case.settings.service).records]
    return "\n".join(words)


def nothing_twice(case):
    started = case.sagemaker.created + case.azureml.created
    assert all(count == 1 for count in started.values()) and len(started) <= 1, started


def sample(found, service):
    """An eighth of the ways, others for each service; OPPORTUNE_FAULT_CELLS=all tries each (a quarter of an hour)."""
    if os.environ.get("OPPORTUNE_FAULT_CELLS") == "all":
        return list(found.items())
    return list(itertools.islice(found.items(), sorted(CLOUD).index(service) % 8, None, 8))


@pytest.mark.parametrize("service", sorted(CLOUD))
def test_whatever_a_service_answers_the_slot_is_decided_and_the_other_cloud_goes_on(bench, caplog, service):
    caplog.set_level(logging.WARNING, "opportune")
    cloud, works = CLOUD[service], OTHER[CLOUD[service]]
    scene, began_s, cells = SCENES.get(service, "trained"), time.monotonic(), 0
    for name, (fault, words) in sample(ways(service, "tick"), service):
        lead, cells = (cloud, works)[cells % 2], cells + 1
        case = bench.fresh(lead, **{f"price_usd_per_hour_{works}": 2.0})  # so that it trains on the faulty one
        if scene == "trained":
            case.trained(cloud)
        case.call_s = CALL_S if name in SLOW else case.call_s
        caplog.clear()
        bench.fronts[service].fault = fault(service)
        started_s = time.monotonic()
        decision = tick(case.deps(lead), NOW)
        took_s = time.monotonic() - started_s
        bench.fronts[service].mend()
        where = f"{service}, {name}, {lead} leads"
        assert took_s < RUN_S, f"{where}: {took_s:.1f} s"
        kept = case.state(works).decision(f"decision-{case.job_id}")
        assert kept is not None and decision == kept, f"{where}: not decided"
        assert case.state(works).routes(case.settings.service).heartbeat_s == NOW, f"{where}: no heartbeat"
        assert not words or re.search(words, told(case, caplog)), f"{where}: {told(case, caplog)}"
        nothing_twice(case)
        started_s = time.monotonic()
        case.policy = load_policy("never")
        case.run(lead, 1, start=1)
        assert time.monotonic() - started_s < RUN_S
    print(f"{service}, ticks: {cells} cells in {time.monotonic() - began_s:.1f} s")


@pytest.mark.parametrize("service", sorted(set(CLOUD) - {"sqs", "queue"}))
def test_whatever_a_service_answers_a_job_is_started_once_or_ends_with_the_reason(bench, caplog, service):
    caplog.set_level(logging.WARNING, "opportune")
    cloud, began_s, cells = CLOUD[service], time.monotonic(), 0
    for name, (fault, words) in sample(ways(service, "start"), service):
        cells += 1
        case, where, said = bench.fresh(cloud), f"{service}, {name}", ""
        case.call_s = CALL_S if name in SLOW else case.call_s
        message = encode(case.message(cloud)).decode()
        caplog.clear()
        bench.fronts[service].fault = fault(service)
        started_s = time.monotonic()
        try:
            start_training(case.deps(cloud), message, NOW)
        except UnavailableError as exc:
            said = str(exc)
        assert time.monotonic() - started_s < RUN_S, where
        bench.fronts[service].mend()
        assert not words or re.search(words, said + told(case, caplog)), f"{where}: {said} {told(case, caplog)}"
        if said:
            start_training(case.deps(cloud), message, NOW + 1)
        record = case.record(cloud, case.job_id)
        nothing_twice(case)
        if record.status is JobStatus.TRAINING:
            assert case.stand_in(cloud).created[case.job_id] == 1, where
        else:
            assert (record.status, record.cause) == (JobStatus.FAILED, "refused"), f"{where}: {record}"
            assert MARK in record.reason, where
    print(f"{service}, starts: {cells} cells in {time.monotonic() - began_s:.1f} s")


@pytest.mark.parametrize("service", ["s3", "sagemaker", "blob", "ml"])
def test_whatever_a_service_answers_a_completion_event_loses_nothing(bench, service):
    cloud = CLOUD[service]
    for name, (fault, _) in sample(ways(service, "event"), service):
        case = bench.fresh(cloud, policy="never")
        job_id = case.trained(cloud)
        case.call_s = CALL_S if name in SLOW else case.call_s
        bench.fronts[service].fault = fault(service)
        started_s = time.monotonic()
        with contextlib.suppress(UnavailableError):  # then the event comes again, or the next tick sees to it
            training_finished(case.deps(cloud), job_id, NOW)
        assert time.monotonic() - started_s < RUN_S, f"{service}, {name}"
        bench.fronts[service].mend()
        case.run(cloud, 3, start=1)
        record = case.record(cloud, job_id)
        assert record.status is JobStatus.LIVE or (MARK in record.reason), f"{service}, {name}: {record}"
        nothing_twice(case)


# --- answers that get lost


LOSSES = {"500": lost(500), "503": lost(503), "broken": lost(500, "broken")}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("service", ["dynamodb", "table"])
def test_a_claim_whose_answer_is_lost_still_starts_its_job_once(bench, service, loss):
    cloud = CLOUD[service]
    case = bench.fresh(cloud)
    message = encode(case.message(cloud)).decode()
    bench.fronts[service].fault = LOSSES[loss](service)
    outcomes = []
    for delivery in range(5):
        try:
            outcomes.append(start_training(case.deps(cloud), message, NOW + delivery))
            break
        except UnavailableError as exc:
            outcomes.append(str(exc))
    assert outcomes[-1] in (Outcome.STARTED, Outcome.DUPLICATE), outcomes
    assert case.stand_in(cloud).created == {case.job_id: 1}, outcomes
    assert case.record(cloud, case.job_id).status is JobStatus.TRAINING, outcomes


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("service", ["dynamodb", "table"])
def test_a_decision_and_routes_whose_answers_are_lost_are_there_and_the_message_is_sent(bench, service, loss):
    cloud = CLOUD[service]
    case = bench.fresh(cloud, **{f"price_usd_per_hour_{OTHER[cloud]}": 2.0})
    before = case.clouds[cloud].queue.depth()
    bench.fronts[service].fault = LOSSES[loss](service)
    decision = tick(case.deps(cloud), NOW)
    bench.fronts[service].mend()
    assert decision.action.cloud == cloud
    for name in case.clouds:
        assert case.state(name).decision(f"decision-{case.job_id}") == decision
        assert case.state(name).routes(case.settings.service).heartbeat_s == NOW
    assert case.clouds[cloud].queue.depth() == before + 1
    assert start_training(case.deps(cloud), encode(case.message(cloud)).decode(), NOW) is Outcome.STARTED


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("service", ["dynamodb", "table"])
def test_a_conditional_write_whose_answer_is_lost_is_known_for_ones_own_and_anothers_is_not(bench, service, loss):
    documents, key = bench.fresh().clouds[CLOUD[service]].documents, secrets.token_hex(4)
    tag = documents.put("lost", key, b"first", if_absent=True)
    before = documents.put("lost", key, b"second", if_etag=tag)
    bench.fronts[service].fault = LOSSES[loss](service)
    with pytest.raises(ConflictError):
        documents.put("lost", key, b"late", if_etag=tag)
    with contextlib.suppress(UnavailableError):  # where the SDK does not ask again, nobody has said no
        tag = documents.put("lost", key, b"third", if_etag=before)
        assert documents.get("lost", key) == (b"third", tag)
    assert documents.get("lost", key).body == b"third"
    with contextlib.suppress(UnavailableError):
        documents.put("lost", f"{key}-new", b"mine", if_absent=True)
    assert documents.get("lost", f"{key}-new").body == b"mine"
    with pytest.raises(ConflictError):
        documents.put("lost", f"{key}-new", b"not mine", if_absent=True)


# --- refusals


@pytest.mark.parametrize(
    ("cloud", "reply", "cause"),
    [
        ("aws", refused("ResourceLimitExceeded", "the account-level service limit is 0 Instances"), "refused"),
        ("aws", refused("ValidationException", "Could not assume role arn:aws:iam::1:role/x"), "refused"),
        ("aws", refused("ValidationException", "image opportune-training:latest does not exist"), "refused"),
        ("aws", refused("AccessDeniedException", "not authorized to perform: sagemaker:CreateTrainingJob"), "refused"),
        ("aws", refused("InsufficientCapacity", "no ml.g4dn.xlarge now"), "capacity"),
        ("aws", refused("ThrottlingException", "Rate exceeded"), ""),
        ("aws", refused("InternalFailure", "oops", 500), ""),
        ("aws", refused("ServiceUnavailable", "oops", 503), ""),
        ("azure", ml_error(400, "UserError", "compute gpu does not exist"), "refused"),
        ("azure", ml_error(403, "AuthorizationFailed", "the client has no access"), "refused"),
        ("azure", ml_error(400, "OutOfCapacity", "no Standard_NC4as_T4_v3 now"), "capacity"),
        ("azure", ml_error(429, "TooManyRequests", "slow down"), ""),
        ("azure", ml_error(409, "Conflict", "in use"), ""),
        ("azure", ml_error(503, "ServiceUnavailable", "oops"), ""),
    ],
)
def test_a_refusal_ends_the_job_at_its_first_delivery_and_a_stumble_brings_the_message_again(
    bench, cloud, reply, cause
):
    case = bench.fresh(cloud)
    message = encode(case.message(cloud, also_in=[OTHER[cloud]])).decode()
    key = "CreateTrainingJob" if cloud == "aws" else ("PUT", "jobs/")
    case.stand_in(cloud).says[key] = reply
    words = json.loads(reply.body)
    words = words.get("error", words)["message"]
    if not cause:
        with pytest.raises(UnavailableError, match=words):
            start_training(case.deps(cloud), message, NOW)
        assert case.record(cloud, case.job_id).status is JobStatus.CLAIMED
        del case.stand_in(cloud).says[key]
        assert start_training(case.deps(cloud), message, NOW + 30) is Outcome.STARTED
        return
    assert start_training(case.deps(cloud), message, NOW) is Outcome.REFUSED
    record = case.record(cloud, case.job_id)
    assert (record.status, record.cause) == (JobStatus.FAILED, cause)
    assert words in record.reason
    decision = tick(case.deps(cloud), NOW + 60)
    assert decision.action.cloud == OTHER[cloud], decision.reason


def test_a_value_too_long_is_refused_at_once(bench):
    case = bench.fresh(sagemaker_role_arn="arn")  # what the SDK itself refuses
    message = encode(case.message("aws")).decode()
    assert start_training(case.deps("aws"), message, NOW) is Outcome.REFUSED
    assert "RoleArn" in case.record("aws", case.job_id).reason


@pytest.mark.parametrize(
    ("cloud", "reply", "words"),
    [
        ("aws", refused("AccessDeniedException", "not authorized: DescribeTrainingJob"), "not authorized"),
        ("aws", as_json(200, {"TrainingJobStatus": "Pondering"}), "unknown status 'Pondering'"),
        ("azure", ml_error(403, "AuthorizationFailed", "the client has no access"), "no access"),
        ("azure", as_json(200, {"properties": {"status": "Pondering"}}), "unknown status 'Pondering'"),
        ("azure", ml_error(404, "ResourceGroupNotFound", "the group is gone"), "the group is gone"),
    ],
)
def test_a_job_of_which_nothing_is_told_ends_with_the_last_answer_when_its_time_is_over(bench, cloud, reply, words):
    case = bench.fresh(cloud, policy="never")
    job_id = case.training(cloud, NOW)
    case.stand_in(cloud).says["DescribeTrainingJob" if cloud == "aws" else ("GET", "jobs/")] = reply
    decision = tick(case.deps(cloud), NOW + 60)
    assert words in decision.conditions[f"{cloud} job {job_id}"]
    tick(case.deps(cloud), NOW + 7_100)
    assert case.record(cloud, job_id).status is JobStatus.TRAINING
    tick(case.deps(cloud), NOW + 7_260)
    record = case.record(cloud, job_id)
    assert record.status is JobStatus.FAILED
    assert words in record.reason


# --- endpoints


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_what_the_instances_of_one_cloud_cannot_load_is_taken_back_there_and_said_why(bench, cloud):
    case = bench.fresh("aws", policy="never")
    job_id = case.trained("aws")
    version = "m" + hashlib.sha256(job_id.encode()).hexdigest()[:10]
    case.fleets[cloud].cannot = {(name, version): "CUDA out of memory" for name in ("one", "two")}
    case.run("aws", 6)
    record = case.record("aws", job_id)
    assert record.status is JobStatus.LIVE, "the other one serves it"
    assert f"{cloud} refused it" in record.reason and "CUDA out of memory" in record.reason
    assert (case.fleets[cloud].version, case.fleets[OTHER[cloud]].version) == ("base", version)
    assert record.asked[cloud] <= 2


@pytest.mark.parametrize("status", ["OutOfService", "UpdateRollbackFailed", "Failed"])
def test_an_endpoint_that_is_broken_is_not_waited_for_and_its_words_are_on_the_job(bench, status):
    case = bench.fresh("aws", policy="never")
    job_id = case.trained("aws")
    case.sagemaker.endpoint |= {"EndpointStatus": status, "FailureReason": "no machine passed"}
    decision = tick(case.deps("aws"), NOW)
    assert f"{status}: no machine passed" in decision.conditions["aws endpoint"]
    case.follow()
    case.run("aws", 3, start=1)
    assert case.record("aws", job_id).status is JobStatus.LIVE
    assert "no machine passed" in case.record("aws", job_id).reason
    routes = {e.cloud: e for e in case.state("azure").routes(case.settings.service).endpoints}
    assert not routes["aws"].healthy and routes["azure"].healthy


@pytest.mark.parametrize("status", ["Updating", "Deleting", "Creating"])
def test_a_release_does_not_wait_for_what_the_endpoints_owner_does_with_it(bench, status):
    case = bench.fresh("aws", policy="never")
    job_id = case.trained("aws")
    case.sagemaker.endpoint["EndpointStatus"] = status
    case.run("aws", 3)
    assert case.record("aws", job_id).status is JobStatus.LIVE
    assert {fleet.version for fleet in case.fleets.values()} == {case.record("aws", job_id).model_version}


def test_of_several_variants_the_largest_counts_whatever_it_is_called(bench):
    case = bench.fresh("aws", policy="never")
    variants = [{"VariantName": "blue", "CurrentWeight": 0.0}, {"VariantName": "green", "CurrentWeight": 0.9}]
    case.sagemaker.endpoint["ProductionVariants"] = variants
    told = case.clouds["aws"].host.state()
    assert (told.version, told.healthy) == ("base", True)
    case.sagemaker.endpoint["ProductionVariants"] = variants[:1]
    told = case.clouds["aws"].host.state()
    assert not told.healthy and "takes traffic" in told.reason


def test_a_lost_answer_to_a_release_is_no_second_release(bench):
    for service in ("s3", "blob"):
        case = bench.fresh(CLOUD[service], policy="never")
        job_id = case.trained(CLOUD[service])
        bench.fronts[service].fault = lost(500)(service)
        case.run(CLOUD[service], 1)
        bench.fronts[service].mend()
        case.run(CLOUD[service], 4, start=1)
        assert case.record(CLOUD[service], job_id).status is JobStatus.LIVE, case.record(CLOUD[service], job_id)
        for services in case.clouds.values():
            assert services.host.state().release.revision == 1


# --- machines


def test_a_spot_job_that_waits_costs_nothing_and_the_other_cloud_is_next(bench):
    case = bench.fresh("aws", cooldown_slots=5.0)
    job_id = case.training("aws")
    case.sagemaker.jobs[job_id] = {"TrainingJobStatus": "InProgress", "SecondaryStatus": "Starting"}
    assert tick(case.deps("aws"), NOW).action is Action.HOLD
    case.sagemaker.train(job_id, TrainingJobStatus="Stopped", SecondaryStatus="MaxWaitTimeExceeded")
    del case.sagemaker.jobs[job_id]["TrainingStartTime"]
    decision = tick(case.deps("aws"), NOW + 60)
    record = case.record("aws", job_id)
    assert (record.status, record.cause, record.cost_usd) == (JobStatus.FAILED, "capacity", 0.0)
    assert "waited for capacity" in record.reason
    assert decision.action is Action.RETRAIN_AZURE, decision.reason


def test_what_a_spot_job_bills_is_what_it_costs(bench):
    case = bench.fresh("aws", policy="never")
    job_id = case.trained("aws")
    case.sagemaker.jobs[job_id] |= {"BillableTimeInSeconds": 10, "TrainingTimeInSeconds": 30}
    case.run("aws", 1)
    assert case.record("aws", job_id).cost_usd == pytest.approx(0.8218 * 10 / 3600)


def test_azure_ml_without_a_machine_is_no_failure_of_the_model(bench):
    case = bench.fresh("azure", cooldown_slots=5.0)
    job_id = case.training("azure")
    case.azureml.train(job_id, status="Failed", properties={}, error={"code": "AllocationFailed", "message": "no T4"})
    decision = tick(case.deps("azure"), NOW)
    record = case.record("azure", job_id)
    assert (record.status, record.cause, record.cost_usd) == (JobStatus.FAILED, "capacity", 0.0)
    assert "no T4" in record.reason
    assert decision.action is Action.RETRAIN_AWS, decision.reason


# --- documents


BODIES = {"unreadable": b"{oops", "newer": b'{"version": 99}', "empty": b"", "nested": b"[" * 30_000}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("where", ["aws", "azure"])
def test_a_document_that_cannot_be_read_stops_neither_ticks_nor_starts(bench, where, body):
    for kind in ("job", "routes", "control", "tally", "lock", "decision"):
        case = bench.fresh("aws", price_usd_per_hour_azure=2.0)
        service, documents = case.settings.service, case.clouds[where].documents
        message = encode(case.message("aws", NOW - 120, also_in=["azure"])).decode()
        old = job_id_for(service, NOW - 3_000)
        key = {"job": old, "decision": f"decision-{case.job_id}"}.get(kind, service)
        documents.put(kind, key, BODIES[body])
        decision = tick(case.deps("aws"), NOW)
        newer = kind == "decision" and body == "newer"
        assert (decision is None) == newer, f"{where} {kind}"
        other = case.state(OTHER[where])
        assert newer or other.decision(f"decision-{case.job_id}") == decision
        assert newer or other.routes(service).heartbeat_s == NOW, f"{where} {kind}"
        assert start_training(case.deps("aws"), message, NOW) is Outcome.STARTED, f"{where} {kind}"


def test_an_event_about_a_job_that_cannot_be_read_raises_nothing(bench):
    case = bench.fresh()
    case.clouds["aws"].documents.put("job", case.job_id, b"{oops")
    training_finished(case.deps("aws"), case.job_id, NOW)


@pytest.mark.parametrize("service", ["sagemaker", "ml"])
def test_where_one_cloud_is_alone_a_silent_endpoint_does_not_keep_its_tables_from_being_asked(bench, service):
    case = bench.fresh(CLOUD[service])
    case.clouds, case.call_s = {CLOUD[service]: case.clouds[CLOUD[service]]}, CALL_S
    bench.fronts[service].fault = SLOW["never answers"][0](service)
    assert tick(case.deps(CLOUD[service]), NOW) is not None
