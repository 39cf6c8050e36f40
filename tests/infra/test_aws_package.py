"""The deployed zip in AWS's own runtime under Python 3.13: the stack from `osls deploy`, its variables, its queues.

One story in the order of the functions: a tick decides, the queue starts the training, its end releases the model, and
users see the route.
"""

import collections
import hashlib
import json
import time
import urllib.request
import zipfile

import msgspec
import pytest

from local.runtimes import FunctionError, LambdaRuntime, tree_digest
from shared.contracts import FeedbackPair, InstanceStatus, Metrics, Release, TrainingJob, decode, encode

pytestmark = [
    pytest.mark.xdist_group("packages"),
    pytest.mark.slow,
    # resources of the stack that moto does not know; the linter checks them
    pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning"),
]
BROKEN = "qa-20200101t000000"  # the one job that SageMaker refuses


@pytest.fixture(scope="module")
def code(packages, tmp_path_factory):
    """The zip as Lambda unpacks it: nothing may be written into it."""
    folder = tmp_path_factory.mktemp("task")
    zipfile.ZipFile(packages / "aws.zip").extractall(folder)
    before = tree_digest(folder)
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    assert tree_digest(folder) == before, "a function wrote into its code folder"
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture(scope="module")
def sagemaker(deployed, http_server):
    """SageMaker of the deployment, which has an outage for one job, and leaves uncompressed output as it is asked."""

    def proxy(asked):
        if b"CreateTrainingJob" in asked.headers["X-Amz-Target"].encode() and BROKEN.encode() in asked.body:
            return 500, b'{"__type": "InternalFailure", "message": "outage"}'
        request = urllib.request.Request(deployed.url, asked.body, dict(asked.headers))
        try:
            with urllib.request.urlopen(request) as answer:
                told = answer.read().replace(b"/output/model.tar.gz", b"/output/model/")
                return answer.status, told, {"Content-Type": "application/x-amz-json-1.1"}
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    with http_server(proxy) as url:
        yield url


@pytest.fixture(scope="module")
def function(code, deployed, sagemaker, tmp_path_factory):
    """A function: name -> its running runtime."""
    running = {}
    logs = tmp_path_factory.mktemp("logs")

    def start(name):
        if name not in running:
            handler = f"functions.aws.{name.replace('-', '_')}.handler"
            env = {**deployed.environments[name], "AWS_ENDPOINT_URL_SAGEMAKER": sagemaker}
            running[name] = LambdaRuntime(code, handler, env, logs / f"{name}.log")
            running[name].log = logs / f"{name}.log"
        return running[name]

    yield start
    for runtime in running.values():
        runtime.close()


@pytest.fixture(scope="module")
def labelled(deployed):
    """Enough labelled answers to train on, as a serving container leaves them."""
    pairs = [FeedbackPair(question=f"q{n}", answers=(f"a{n}",), received_s=time.time() - 600 + n) for n in range(64)]
    body = b"".join(encode(pair) + b"\n" for pair in pairs)
    bucket = deployed.environments["retrain"]["OPPORTUNE_BUCKET"]
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(time.time() - 600))
    deployed.client("s3").put_object(Bucket=bucket, Key=f"feedback/aws/{stamp}-1.jsonl", Body=body)


@pytest.fixture(scope="module")
def decision(function, labelled):
    """What the first tick decided."""
    return function("schedule").invoke({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}})


def receive(deployed, queue):
    sqs = deployed.client("sqs")
    url = sqs.get_queue_url(QueueName=deployed.environments["retrain"][queue])["QueueUrl"]
    asked = sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], VisibilityTimeout=0
    )
    return url, asked.get("Messages", [])


def record(message):
    """A received message in the form in which Lambda hands it to the function."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "0", "SenderId": "x"},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:retrain",
        "awsRegion": "eu-west-1",
    }


def drain(deployed, runtime):
    """Lambda's poller until the queue is empty: what an answer does not name is deleted. Counts what came back."""
    came_back = collections.Counter()
    idle = 0
    while idle < 3:
        url, messages = receive(deployed, "OPPORTUNE_QUEUE")
        if not messages:
            idle += 1
            time.sleep(0.1)
            continue
        answer = runtime.invoke({"Records": [record(message) for message in messages]})
        failed = {item["itemIdentifier"] for item in answer["batchItemFailures"]}
        for message in messages:
            if message["MessageId"] in failed:
                came_back[message["Body"]] += 1
            else:
                deployed.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return came_back


def test_a_tick_decides_records_and_enqueues(deployed, function, decision):
    assert decision["action"] == "retrain_aws"
    _, messages = receive(deployed, "OPPORTUNE_QUEUE")
    assert [decode(TrainingJob, m["Body"]).job_id for m in messages] == [decision["job_id"]]
    again = function("schedule").invoke({})
    assert again["action"] == "hold" or again["decision_id"] == decision["decision_id"], "one retrain at a time"


def test_the_bad_messages_of_a_batch_end_in_the_dead_letter_queue_with_their_reasons(deployed, function, decision):
    url, messages = receive(deployed, "OPPORTUNE_QUEUE")
    good = decode(TrainingJob, messages[0]["Body"])
    sqs = deployed.client("sqs")
    broken = encode(msgspec.structs.replace(good, job_id=BROKEN, service="other")).decode()
    for body in (broken, "not json at all", encode(good).decode()):
        sqs.send_message(QueueUrl=url, MessageBody=body)
    assert drain(deployed, function("retrain")) == {}, "what nobody can handle does not come back"
    _, dead = receive(deployed, "OPPORTUNE_DEAD_LETTER_QUEUE")
    reasons = {m["Body"][:15]: m.get("MessageAttributes", {}).get("reason", {}).get("StringValue", "") for m in dead}
    assert "not JSON" in reasons["not json at all"]
    assert "asks for" in reasons[broken[:15]], "no recorded decision asks for it"
    jobs = deployed.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    assert [job["TrainingJobName"] for job in jobs] == [decision["job_id"]], "two deliveries, one job"


def test_the_end_of_a_training_job_releases_its_model(deployed, function, decision, a_manifest):
    job_id, s3 = decision["job_id"], deployed.client("s3")
    better = Metrics(bleu1=0.8, exact_match=0.8, f1=0.8, rouge_l=0.8, examples=64)
    files = {"model.safetensors": hashlib.sha256(b"weights").hexdigest()}
    manifest = encode(a_manifest(model_version="m1", job_id=job_id, candidate=better, files=files))
    bucket = deployed.environments["retrain"]["OPPORTUNE_BUCKET"]
    for name, body in (("model.safetensors", b"weights"), ("manifest.json", manifest)):
        s3.put_object(Bucket=bucket, Key=f"jobs/{job_id}/output/model/{name}", Body=body)
    make_endpoint(deployed)
    event = {
        "source": "aws.sagemaker",
        "detail-type": "SageMaker Training Job State Change",
        "detail": {"TrainingJobName": job_id, "TrainingJobStatus": "Completed"},
    }
    assert function("training-events").invoke(event) == {"job_id": job_id, "status": "accepted"}
    released = decode(Release, s3.get_object(Bucket=bucket, Key="release/qa.json")["Body"].read())
    assert released.of("stable") == "m1"
    assert s3.get_object(Bucket=bucket, Key="models/m1/model.safetensors")["Body"].read() == b"weights"
    # a container of the endpoint follows; a tick or, as here, a repeated event finds that it has
    told = InstanceStatus(service="qa", cloud="aws", instance="i-1", told_s=time.time(), revision=1, active="m1")
    s3.put_object(Bucket=bucket, Key="release/qa/instances/i-1.json", Body=encode(told))
    assert function("training-events").invoke(event) == {"job_id": job_id, "status": "live"}, "events repeat"


def make_endpoint(deployed):
    """As `opportune release --first` leaves it, whatever its variant is called."""
    sagemaker, name = deployed.client("sagemaker"), deployed.environments["http"]["OPPORTUNE_SAGEMAKER_ENDPOINT"]
    role = "arn:aws:iam::123456789012:role/serving"
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "i:1"}, ExecutionRoleArn=role)
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)


def test_users_see_the_route_and_the_decision(function, decision):
    status, routes = get(function, "/routes")
    assert status == 200
    assert [(e["cloud"], e["model_version"]) for e in routes["endpoints"]] == [("aws", "m1")]
    status, listed = get(function, "/decisions")
    assert decision["decision_id"] in [d["decision_id"] for d in listed["decisions"]]
    assert get(function, "/nowhere")[0] == 404
    assert get(function, "/decisions", token="wrong")[0] == 401, "the token is the one kept in SSM"


def test_an_event_of_another_shape_fails_loudly(function):
    with pytest.raises(FunctionError, match="TrainingJobName is missing"):
        function("training-events").invoke({"detail": {}})


def test_one_trace_id_leads_from_the_decision_to_the_route(function, decision):
    status, found = get(function, f"/decisions/{decision['decision_id']}")
    assert status == 200, found
    for name in ("schedule", "retrain", "training-events"):
        lines = function(name).log.read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        assert any(event.get("trace_id") == found["trace_id"] for event in events), name


def get(function, path, token="0p3rator"):
    answer = function("http").invoke(
        {
            "version": "2.0",
            "routeKey": "ANY /{proxy+}",
            "rawPath": path,
            "rawQueryString": "",
            "headers": {"host": "api.example.com", "authorization": f"Bearer {token}"},
            "requestContext": {
                "http": {"method": "GET", "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1"},
                "stage": "$default",
            },
            "isBase64Encoded": False,
        }
    )
    return answer["statusCode"], json.loads(answer["body"])
