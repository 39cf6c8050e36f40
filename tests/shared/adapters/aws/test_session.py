"""Clients, signatures and errors of a session, against a server that answers as AWS does and one that is boto3's."""

import datetime as dt
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from botocore.awsrequest import AWSResponse

from shared.adapters.aws.documents import DynamoDocuments
from shared.adapters.aws.session import AwsSession
from shared.errors import CapacityError, ConflictError, NotFoundError, RefusedError, UnavailableError

THROTTLED = (400, b'{"__type": "com.amazonaws.dynamodb#ThrottlingException", "message": "slow down"}')


@pytest.fixture
def identity(monkeypatch):
    """Credentials and a region, and nothing of this machine's configuration."""
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def nobody(identity, monkeypatch, tmp_path):
    """A place without credentials, region or configuration; its folder for configuration."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return tmp_path


# --- clients


def test_neither_the_sdk_nor_a_client_is_loaded_before_it_is_asked_for():
    program = (
        "import sys\n"
        "from shared.adapters.aws.session import AwsSession\n"
        "from shared.adapters.aws import documents, endpoint, objects, queue, training\n"
        "session = AwsSession()\n"
        "documents.DynamoDocuments(session, 't', 1.0)\n"
        "print([name for name in sys.modules if name.startswith(('boto', 's3transfer'))])\n"
    )
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_service_has_one_client_however_many_ask_at_once(identity):
    session, found, gate = AwsSession(), [], threading.Barrier(8)

    def ask():
        gate.wait()
        found.append(session.client("sqs"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({id(client) for client in found}) == 1
    assert session.client("sts") is not session.client("sqs")


def test_a_client_waits_briefly_and_tries_twice(identity):
    config = AwsSession().client("dynamodb").meta.config
    assert (config.connect_timeout, config.read_timeout) == (2, 20)
    assert config.retries == {"mode": "standard", "total_max_attempts": 2}


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_the_region_comes_from_either_variable(nobody, monkeypatch, variable):
    monkeypatch.setenv(variable, "ap-southeast-2")
    meta = AwsSession().client("dynamodb").meta
    assert (meta.region_name, meta.endpoint_url) == ("ap-southeast-2", "https://dynamodb.ap-southeast-2.amazonaws.com")


# --- errors


@pytest.fixture
def answers(identity, monkeypatch, http_server):
    """A table's documents, the answers to come, (status, body), and the operations of those who took one."""
    to_come, asked = [], []

    def answer(request):
        asked.append(request.headers["X-Amz-Target"].partition(".")[2])
        return to_come.pop(0)

    with http_server(answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
        yield DynamoDocuments(AwsSession(), "the-table", 1.0), to_come, asked


@pytest.mark.parametrize("first", [THROTTLED, (503, b"<html>"), (500, b"")])
def test_a_stumble_is_asked_again(answers, first):
    documents, to_come, asked = answers
    to_come += [first, (200, b"{}")]
    assert documents.get("job", "x") is None
    assert asked == ["GetItem"] * 2


def test_twice_is_an_error_that_says_what_and_why(answers):
    documents, to_come, asked = answers
    to_come += [THROTTLED] * 3
    with pytest.raises(UnavailableError, match=r"the-table.*ThrottlingException: slow down"):
        documents.get("job", "x")
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ConditionalCheckFailedException", ConflictError),
        ("ResourceNotFoundException", NotFoundError),
        ("AccessDeniedException", RefusedError),
        ("ValidationException", RefusedError),
        ("InsufficientInstanceCapacity", CapacityError),
    ],
)
def test_a_refusal_is_final(answers, code, error):
    documents, to_come, asked = answers
    to_come.append((400, json.dumps({"__type": code, "message": "no"}).encode()))
    with pytest.raises(error, match="the-table"):
        documents.put("job", "x", b"", if_absent=True)
    assert asked == ["PutItem"]


def test_without_region_or_credentials_it_says_what_to_do(nobody, monkeypatch):
    with pytest.raises(UnavailableError, match=r"the-table.*set AWS_REGION"):
        DynamoDocuments(AwsSession(), "the-table", 1.0).get("job", "x")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match=r"the-table.*no credentials here"):
        DynamoDocuments(AwsSession(), "the-table", 1.0).get("job", "x")


# --- signatures


class Wire:
    """What a boto3 client would have sent: method, URL, headers, body."""

    def __init__(self, session, service):
        self.sent = []
        session.client(service).meta.events.register("before-send", self._keep)

    def _keep(self, request, **_):
        self.sent.append(request)
        return AWSResponse(request.url, 200, {}, _Empty())


class _Empty:
    def stream(self):
        yield b"{}"


@pytest.mark.parametrize("token", ["", "session/token=="])
@pytest.mark.parametrize(
    ("service", "name", "operation", "request_"),
    [
        ("dynamodb", "dynamodb", "get_item", {"TableName": "t", "Key": {"kind": {"S": "ü"}, "key": {"S": "k"}}}),
        ("sqs", "sqs", "send_message", {"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/1/q", "MessageBody": "m"}),
        ("sagemaker-runtime", "sagemaker", "invoke_endpoint", {"EndpointName": "qa-v1", "Body": b"\x00\xff"}),
        ("sts", "sts", "get_caller_identity", {}),
    ],
)
def test_a_signature_is_the_one_that_boto3_sends(identity, monkeypatch, token, service, name, operation, request_):
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    moment = dt.datetime(2027, 1, 15, 8, 0, 0)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: moment)
    session = AwsSession()
    wire = Wire(session, service)
    try:
        getattr(session.client(service), operation)(**request_)
    except Exception:
        assert wire.sent
    theirs = wire.sent[0]
    headers = {key: _text(value) for key, value in theirs.headers.items()}
    proof = headers.pop("Authorization")
    signed = proof.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    given = {k: v for k, v in headers.items() if k.lower() in signed and k.lower() not in ("x-amz-date", "host")}
    given.pop("X-Amz-Security-Token", None)
    body = theirs.body if isinstance(theirs.body, bytes) else (theirs.body or "").encode()
    ours = session.sign(theirs.method, theirs.url, body, given, service=name)
    assert ours["Authorization"] == proof
    assert ours["X-Amz-Date"] == "20270115T080000Z"
    assert ours.get("X-Amz-Security-Token", "") == token
    assert given.items() <= ours.items()


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


def test_the_region_of_a_signature_can_be_another_than_the_sessions(identity):
    sign = AwsSession().sign
    assert "/us-west-2/aps/" in sign("POST", "https://x/", b"", {}, service="aps", region="us-west-2")["Authorization"]
    assert "/eu-west-1/aps/" in sign("POST", "https://x/", b"", {}, service="aps")["Authorization"]


def test_a_profile_is_found_where_the_environment_has_no_keys(nobody):
    (nobody / "credentials").write_text("[default]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = s\n")
    (nobody / "config").write_text("[default]\nregion = eu-north-1\n")
    found = AwsSession().sign("POST", "https://x/", b"", {}, service="sqs")["Authorization"]
    assert "Credential=AKIDPROFILE/" in found
    assert "/eu-north-1/sqs/" in found


def test_nothing_to_sign_with_says_what_to_do(nobody):
    with pytest.raises(UnavailableError, match="set AWS_REGION"):
        AwsSession().sign("GET", "http://x/", b"", {}, service="aps")
    with pytest.raises(UnavailableError, match="no credentials"):
        AwsSession().sign("GET", "http://x/", b"", {}, service="aps", region="eu-west-1")


# --- the other cloud's token


def test_an_aws_identity_becomes_a_token_for_another_provider(identity, monkeypatch, http_server):
    asked = []

    def answer(request):
        asked.append(request.body.decode())
        return 200, (
            b'<GetWebIdentityTokenResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetWebIdentityTokenResult>'
            b"<WebIdentityToken>signed-by-aws</WebIdentityToken><Expiration>2027-01-15T08:05:00Z</Expiration>"
            b"</GetWebIdentityTokenResult></GetWebIdentityTokenResponse>"
        )

    with http_server(answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        assert AwsSession().identity_token("api://AzureADTokenExchange") == "signed-by-aws"
    assert "Action=GetWebIdentityToken" in asked[0]
    assert "api%3A%2F%2FAzureADTokenExchange" in asked[0]
