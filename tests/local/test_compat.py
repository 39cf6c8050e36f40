"""The inner names that the embedded clouds build on: an upgrade that moves one is noticed here first."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

from local import compat

ROOT = Path(__file__).parents[2]


def test_moto_is_of_the_version_whose_inner_names_are_used() -> None:
    assert version("moto").startswith(f"{compat.MOTO}.")


def test_what_is_replaced_or_read_still_exists() -> None:
    from moto.sagemaker.models import FakeEndpoint

    for name in ("create_model", "create_endpoint_config", "create_endpoint", "delete_endpoint", "describe_endpoint"):
        assert callable(getattr(compat.SageMakerModelBackend, name))
    for name in ("create_training_job", "_get_param"):
        assert callable(getattr(compat.SageMakerResponse, name))
    assert callable(compat.FakeEndpointConfig.validate_instance_type)
    assert callable(FakeEndpoint._process_production_variants)
    backend = compat.SageMakerModelBackend("us-east-1", "123456789012")
    assert compat.model_named(backend, "none") is None
    assert backend.training_jobs == backend.endpoints == backend.endpoint_configs == {}


def test_no_other_module_names_them() -> None:
    private = re.compile(r"from moto|import moto|(?<!self)(?<!cls)\._[a-z](?!exit)")
    for path in (ROOT / "local").rglob("*.py"):
        if path.name not in ("compat.py", "azure_worker.py"):
            found = [line for line in path.read_text().splitlines() if private.search(line) and "os._exit" not in line]
            assert found == [], path


def test_the_worker_library_is_of_the_version_whose_inner_names_are_used() -> None:
    assert "azure-functions-runtime==1.3.0" in (ROOT / "requirements" / "runtimes.in").read_text()
