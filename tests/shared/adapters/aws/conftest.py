"""The embedded AWS, whose training jobs really run a command."""

import sys
import textwrap

import boto3
import pytest
from rich.console import Console

from local.processes.supervisor import Service, Supervisor, free_port, tcp_ok
from shared.adapters.aws.objects import S3Objects
from shared.adapters.aws.session import AwsSession

CONTAINER = textwrap.dedent(
    """
    import json, os, pathlib, sys, time
    root = pathlib.Path(os.environ["OPPORTUNE_ML_ROOT"])
    hyper = json.loads((root / "input/config/hyperparameters.json").read_text())
    time.sleep(float(hyper["seconds"]))
    if hyper["fail"]:
        (root / "output/failure").write_text(hyper["fail"])
        sys.exit(1)
    found = sorted(p.relative_to(root / "input/data").as_posix() for p in (root / "input/data").rglob("*.*"))
    (root / "model/found.json").write_text(json.dumps(found))
    """
)


@pytest.fixture(scope="module")
def sagemaker_session(tmp_path_factory):
    """A session on it; bucket, training data and a model exist."""
    folder, port, patch = tmp_path_factory.mktemp("sagemaker"), free_port(), pytest.MonkeyPatch()
    script = folder / "container.py"
    script.write_text(CONTAINER)
    env = {
        "OPPORTUNE_LOCAL_WORK": str(folder),
        "OPPORTUNE_LOCAL_TRAIN_COMMAND": f"{sys.executable} {script}",
    }
    with Supervisor(folder / "logs", console=Console(stderr=True, force_terminal=False), grace_s=1.0) as supervisor:
        command = [sys.executable, "-m", "local.clouds.aws.cloud", "--port", str(port)]
        supervisor.start(Service("aws", command, tcp_ok(port), env))
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "local")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="opportune")
        session = AwsSession()
        S3Objects(session, "opportune").put("jobs/data/train.jsonl", b"{}\n")
        S3Objects(session, "opportune").put("models/m1/config.json", b"{}")
        yield session
        patch.undo()
