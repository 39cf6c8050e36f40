"""The clouds' own function runtimes on this machine, running the packaged functions.

    with LambdaRuntime(build / "aws", "functions.aws.schedule.handler", env, log) as function:
        answer = function.invoke({})

AWS: the Lambda runtime interface emulator with awslambdaric (lambda_runtime). Azure: the Functions worker library over
the app (functions_worker, azure_worker). `packages` builds what they run.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from local.runtimes.functions_worker import AzureWorker
from local.runtimes.lambda_runtime import LambdaFunction, LambdaRuntime
from local.runtimes.process import EMULATOR, PYTHON, ROOT, FunctionError, RuntimeEndedError, clean_env

__all__ = [
    "EMULATOR",
    "PYTHON",
    "ROOT",
    "AzureWorker",
    "FunctionError",
    "LambdaFunction",
    "LambdaRuntime",
    "RuntimeEndedError",
    "clean_env",
    "tree_digest",
]


def tree_digest(folder: Path) -> str:
    """Changes when any file below the folder appears, disappears or changes."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
