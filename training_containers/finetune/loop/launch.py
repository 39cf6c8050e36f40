"""Launch of distributed training: `train` starts itself again under torchrun, one process per GPU and machine."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from shared.errors import InvalidInputError
from training_containers.finetune.loop.interruption import EXIT_INTERRUPTED, Interruption

log = logging.getLogger(__name__)

_PORT: Final = 29500
_POLL_S: Final = 0.1


class Machines(NamedTuple):
    """The machines of a job, and which of them this is."""

    total: int = 1
    number: int = 0  # of this machine, from 0
    first: str = "127.0.0.1"


def sagemaker_machines(root: Path) -> Machines:
    """What SageMaker wrote to input/config/resourceconfig.json; one machine when there is no such file.

    Raises:
        InvalidInputError: the file does not name this machine.
    """
    path = root / "input/config/resourceconfig.json"
    if not path.exists():
        return Machines()
    try:
        config = json.loads(path.read_bytes())
        hosts = sorted(config["hosts"])
        return Machines(len(hosts), hosts.index(config["current_host"]), hosts[0])
    except (ValueError, KeyError, TypeError) as exc:
        raise InvalidInputError(f"{path}: hosts and current_host are needed: {exc!r}") from exc


def azureml_machines(env: Mapping[str, str]) -> Machines:
    """What Azure ML's PyTorch distribution puts into the environment, one process per machine; else one machine."""
    if "AZUREML_RUN_ID" not in env or "NODE_RANK" not in env:
        return Machines()
    return Machines(int(env.get("AZUREML_NODE_COUNT", "1")), int(env["NODE_RANK"]), env.get("MASTER_ADDR", ""))


def run_processes(machines: Machines, processes: int, env: Mapping[str, str], interruption: Interruption) -> int | None:
    """Run this same command line in several processes, and return the exit code; None when one is all there is.

    `processes` per machine; 0 = one per GPU. Inside torchrun there is nothing to do.
    """
    if "TORCHELASTIC_RUN_ID" in env:
        return None
    # counted without torch: importing it takes seconds, and this process only waits
    per_machine = processes or len(list(Path("/dev").glob("nvidia[0-9]*"))) or 1
    if per_machine * machines.total == 1:
        return None
    command = [sys.executable, "-m", "torch.distributed.run"]
    command += ["--nnodes", str(machines.total), "--node-rank", str(machines.number)]
    command += ["--nproc-per-node", str(per_machine)]
    # on one machine any free port will do: two jobs may share it
    command += (
        ["--master-addr", machines.first, "--master-port", str(_PORT)] if machines.total > 1 else ["--standalone"]
    )
    log.info("starting processes", extra={"action": "launch", "per_machine": per_machine, "machines": machines.total})
    child = subprocess.Popen([*command, "-m", "training_containers", *sys.argv[1:]])
    handed_on = False
    while child.poll() is None:
        if interruption.requested() and not handed_on:
            child.terminate()  # torchrun passes it on to its processes
            handed_on = True
        time.sleep(_POLL_S)
    return EXIT_INTERRUPTED if handed_on and child.returncode else child.returncode
