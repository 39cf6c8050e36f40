"""Both embedded clouds together, with nothing in flight; tests/e2e has the whole loop on them."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3  # noqa: TID251 - the test is a client of its own
import pytest
from rich.console import Console

from local.clouds.azure.storage import queue_client
from local.clouds.cluster import Cluster, ClusterOptions
from local.processes.reaper import marked
from shared.contracts import CLOUDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("cluster")]

ROOT = Path(__file__).parents[3]
Eventually = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model that has hardly learned anything."""
    out = tmp_path_factory.mktemp("base") / "model"
    command = [sys.executable, "-m", "training_containers", "make-base", "--out", str(out), "--epochs=1", "--first=8"]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    return out


@pytest.fixture(scope="module")
def cluster(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    env = {
        "OPPORTUNE_BASE_MODEL": str(model),
        "OPPORTUNE_SLOT_SECONDS": "2",
        "OPPORTUNE_TIME_SCALE": "30",
        "OPPORTUNE_POLICY": "never",
    }
    console = Console(stderr=True, force_terminal=False)
    with Cluster(ClusterOptions(tmp_path_factory.mktemp("cluster"), env, console)) as running:
        yield running
    assert marked(running.supervisor.mark) == []


def post(url: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as exc:
        return exc.code, json.loads(exc.read())


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=15) as answer:
        return json.loads(answer.read())


def test_both_front_doors_answer_and_prometheus_sees_both_serving_processes(
    cluster: Cluster, eventually: Eventually
) -> None:
    for cloud in CLOUDS:
        status, answer = post(f"{cluster.doors[cloud]}/predict", {"question": "what is a barometer?"})
        assert (status, answer["model_version"]) == (200, cluster.first_version)
    query = f"{cluster.prometheus_url}/api/v1/query?query=llm_model_active"
    found = eventually(lambda: len(rows := get(query)["data"]["result"]) >= 2 and rows, 30)
    assert {row["metric"]["cloud"] for row in found} == {"aws", "azure"}


def test_a_malformed_message_goes_to_the_dead_letters_of_its_cloud(cluster: Cluster, eventually: Eventually) -> None:
    settings = cluster.settings("azure")
    sqs = boto3.client(
        "sqs",
        endpoint_url=cluster.env["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName=settings.queue)["QueueUrl"], MessageBody="{not json")
    dead = sqs.get_queue_url(QueueName=settings.dead_letter_queue)["QueueUrl"]
    kept = eventually(lambda: sqs.receive_message(QueueUrl=dead, WaitTimeSeconds=1).get("Messages"))
    assert kept[0]["Body"] == "{not json"
    queue_client(settings.azure_storage_connection, settings.queue).send_message("not base64!")
    poison = queue_client(settings.azure_storage_connection, settings.poison_queue)
    assert eventually(lambda: [m.content for m in poison.receive_messages()]) == ["not base64!"]


def test_nothing_of_a_container_but_its_answers_can_be_reached(cluster: Cluster) -> None:
    for url in (cluster.runtime_url, f"{cluster.scoring_url}/{cluster.settings('azure').azureml_endpoint}"):
        for path in ("metrics", "models", "healthz"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                get(f"{url}/{path}")
            assert refused.value.code == 404


def test_requests_go_to_the_other_cloud_while_one_is_cut_off(cluster: Cluster) -> None:
    cluster.set_cut("aws", True)
    try:
        answers = [post(f"{cluster.doors['aws']}/predict", {"question": "where?"}) for _ in range(5)]
    finally:
        cluster.set_cut("aws", False)
    assert [(status, answer.get("cloud")) for status, answer in answers] == [(200, "azure")] * 5
