"""The clouds' own SDKs speak to the clouds: no adapter has a signature or a wire protocol of its own."""

import ast
import re

import pytest

from local.runtimes import ROOT

ADAPTERS = ROOT / "shared/adapters"
#: azure-core sends through requests; its time limits are set there
EXEMPT = ("azure/sending.py",)
#: what gives a hand-written request away
WIRE = (
    *("AWS4-HMAC", "aws4_request", "X-Amz-Target", "X-Amz-Date", "x-amz-json", "amazonaws.com/"),
    *("SharedKey", "x-ms-version", "x-ms-date", "x-ms-blob-type", "DataServiceVersion", "client_assertion_type"),
)
#: modules to sign with, and to parse what only a protocol of one's own would have to
SIGNING = {"hmac", "xml.etree.ElementTree"}
#: modules that send requests; behind an SDK nothing else needs one
SENDING = {"urllib3", "requests", "http.client", "urllib.request", "socket"}
SOURCES = [p for p in sorted(ADAPTERS.rglob("*.py")) if p.relative_to(ADAPTERS).as_posix() not in EXEMPT]


def imported(tree):
    """Every module that the source imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def own_protocol(text, behind_sdk):
    """What in a source is a signature or a wire protocol."""
    modules = set(imported(ast.parse(text)))
    found = {word for word in WIRE if re.search(re.escape(word), text, re.IGNORECASE)}
    return found | (modules & (SIGNING | SENDING if behind_sdk else SIGNING))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(ADAPTERS).as_posix())
def test_no_adapter_signs_or_speaks_a_protocol_itself(source):
    cloud = source.relative_to(ADAPTERS).parts[0]
    assert own_protocol(source.read_text(), behind_sdk=cloud in ("aws", "azure")) == set()


@pytest.mark.parametrize(
    "text",
    [
        "import hmac",
        "from urllib3 import PoolManager",
        "headers = {'x-amz-target': 'DynamoDB_20120810.GetItem'}",
        "headers = {'X-Ms-Version': '2024-11-04'}",
    ],
)
def test_one_would_be_noticed(text):
    assert own_protocol(text, behind_sdk=True)


def test_every_aws_service_is_asked_through_the_one_session():
    asking = [p.stem for p in (ADAPTERS / "aws").glob("*.py") if re.search(r"session\.client\(", p.read_text())]
    assert {"documents", "endpoint", "objects", "queue", "training"} <= set(asking)
    made = [p.name for p in ADAPTERS.rglob("*.py") if re.search(r"\bboto3\.\w|\bbotocore\.session\b", p.read_text())]
    assert made == ["session.py"]
