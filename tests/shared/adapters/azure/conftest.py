"""The embedded Azure ML workspace over Azurite."""

import sys

import msgspec
import pytest
from rich.console import Console

from local.clouds.azure.storage import CONNECTION_VARIABLE
from local.processes.supervisor import Service, Supervisor, free_port, http_ok
from shared.adapters.azure.credential import azure_credential
from shared.adapters.azure.objects import BlobObjects


@pytest.fixture(scope="session")
def credential():
    """Whoever runs the tests; what has a connection string or a token of its own does not ask it."""
    return azure_credential()


@pytest.fixture(scope="module")
def workspace_settings(azurite, tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("azureml"), free_port()
    env = {
        "OPPORTUNE_LOCAL_WORK": str(folder),
        "OPPORTUNE_AZUREML_TOKEN": "t0k",
        CONNECTION_VARIABLE: azurite.azure_storage_connection,
    }
    with Supervisor(folder / "logs", console=Console(stderr=True, force_terminal=False), grace_s=1.0) as supervisor:
        command = [sys.executable, "-m", "local.clouds.azure.ml", "--port", str(port)]
        supervisor.start(Service("azureml", command, http_ok(f"http://127.0.0.1:{port}/healthz"), env))
        yield msgspec.structs.replace(azurite, azureml_url=f"http://127.0.0.1:{port}", azureml_token="t0k")


@pytest.fixture
def objects(workspace_settings, credential):
    store = BlobObjects(workspace_settings, credential)
    store.put("jobs/x/data/train.jsonl", b"{}\n")
    return store
