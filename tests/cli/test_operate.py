"""The commands that operate a deployment, against moto and Azurite, as a person at a terminal uses them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from shared.adapters.azure.credential import azure_credential
from shared.adapters.azure.documents import TableDocuments
from shared.adapters.azure.queue import StorageQueue
from shared.contracts import Action, job_id_for
from shared.state import State

pytestmark = pytest.mark.xdist_group("clouds")
ROOT = Path(__file__).parents[2]
SLOT = time.time() // 60 * 60 - 600


@pytest.fixture
def opportune(azurite):
    """A function: arguments -> the finished command, with Azure alone configured."""

    def run(*arguments, **env):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "OPPORTUNE_"))}
        settings = {"OPPORTUNE_AZURE_STORAGE_CONNECTION": azurite.azure_storage_connection, "OPPORTUNE_SERVICE": "ops"}
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**kept, **settings, **env},
            timeout=60,
        )

    return run


def test_pause_is_seen_by_status_and_by_the_next_tick_until_resume(opportune, azurite):
    assert opportune("pause", "--reason", "incident 42").stdout == "ops paused on azure\n"
    assert State(TableDocuments(azurite, azure_credential())).control("ops").reason == "incident 42"
    assert "PAUSED: incident 42" in opportune("status").stdout
    assert opportune("resume").returncode == 0
    assert "retraining  allowed" in opportune("status").stdout


def test_redrive_sends_back_what_can_be_read_and_leaves_the_rest(opportune, azurite, a_job):
    queue = StorageQueue(azurite, azure_credential())
    queue.dead_letter(
        msgspec.json.encode(a_job(job_id="ops-1", service="ops", cloud="azure")).decode(), "SageMaker had an outage"
    )
    queue.dead_letter("{oops", "not JSON")
    looked = opportune("redrive", "--dry-run").stdout
    assert "would send back ops-1: SageMaker had an outage" in looked
    assert queue.depth() == 0
    done = opportune("redrive").stdout  # a look hides nothing
    assert "azure: 1 sent back, 1 left" in done
    assert queue.depth() == 1
    assert "dead        1 messages" in opportune("status").stdout
    assert "azure: 0 sent back, 1 left" in opportune("redrive").stdout


def test_decisions_are_listed_with_their_reasons(opportune, azurite, a_decision):
    for back, action in ((0, Action.RETRAIN_AZURE), (1, Action.HOLD)):
        slot = SLOT - 60 * back
        State(TableDocuments(azurite, azure_credential())).record_decision(
            a_decision(
                action,
                decision_id=f"decision-{job_id_for('ops', slot)}",
                service="ops",
                slot_s=slot,
                reason=f"because of {action.name}",
            )
        )
    listed = opportune("decisions", "--since", "2h").stdout
    assert "because of RETRAIN_AZURE" in listed
    assert "because of HOLD" not in listed
    assert "1 plain holds not shown" in listed
    records = [msgspec.json.decode(line) for line in opportune("decisions", "--json").stdout.splitlines()]
    assert [r["action"] for r in records] == [0, 2]
    wrong = opportune("decisions", "--since", "yesterday")
    assert wrong.returncode == 2
    assert "90m, 24h, 7d" in wrong.stderr


def test_doctor_says_what_is_ok_and_what_to_do(opportune):
    done = opportune(
        "doctor", OPPORTUNE_PROMETHEUS_URL="http://127.0.0.1:9", OPPORTUNE_AZUREML_URL="http://127.0.0.1:9"
    )
    assert done.returncode == 1
    told = dict(line[6:].split(": ", 1) for line in done.stdout.splitlines())
    assert "ok    policy: ppo" in done.stdout
    assert told["azure table"] == "answers"
    assert "is it running?" in told["clock"]
    assert "FAIL  azure training service" in done.stdout
    assert "not configured" in told["aws"]


def test_nothing_configured_is_one_line(opportune):
    done = opportune("status", OPPORTUNE_AZURE_STORAGE_CONNECTION="")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "AWS_REGION" in done.stderr
