"""Our signatures are those of botocore."""

import datetime as dt
import time

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from shared.adapters import aws, sigv4


@pytest.mark.parametrize("token", ["", "session/token=="])
@pytest.mark.parametrize(
    ("method", "url", "body", "headers"),
    [
        ("POST", "https://dynamodb.eu-west-1.amazonaws.com/", b"{}", {"Content-Type": "a/b", "X-Amz-Target": "T.Op"}),
        ("GET", "http://127.0.0.1:9090/api/v1/query?query=up%20or%20vector%281%29&b=&a=2", b"", {}),
        ("POST", "https://runtime.example.com:443/endpoints/qa-v1/invocations", b"\x00\xff", {"X-Two": " a   b "}),
    ],
)
def test_botocore_computes_the_same(monkeypatch, token, method, url, body, headers):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    found = sigv4.signed(method, url, body, headers, service="dynamodb", region="eu-west-1")
    request = AWSRequest(method, url, dict(headers), data=body)
    stamp = found["X-Amz-Date"]
    moment = time.strptime(stamp, "%Y%m%dT%H%M%SZ")
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: dt.datetime(*moment[:6]))
    SigV4Auth(Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI", token or None), "dynamodb", "eu-west-1").add_auth(request)
    assert request.headers["X-Amz-Date"] == stamp
    assert found["Authorization"] == request.headers["Authorization"]


def test_a_profile_is_found_where_the_environment_has_no_keys(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = s\n")
    (tmp_path / "config").write_text("[default]\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    aws.session.cache_clear()
    try:
        found = sigv4.signed("POST", "https://x/", b"", {}, service="sqs")["Authorization"]
    finally:
        aws.session.cache_clear()
    assert "Credential=AKIDPROFILE/" in found
    assert "/eu-north-1/sqs/" in found
