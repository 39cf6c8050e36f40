"""Runs the container's `train` command in forks of one interpreter that has torch loaded, each killed at a moment.

    echo '{"root": "/some/ml", "signal": 9, "folder": "/model", "event": 3, "delay_s": 0.1}' | python forked_training.py

Importing torch takes ten times as long as the job of a test, so it happens once here, and the moments fall into the
job. `event` counts what the job does in `folder` (open, rename, remove, ...), so that the machine's speed does not
matter; None = from the start. Then `delay_s` later the signal comes. Prints one line of JSON per job.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from training_containers import __main__ as container
from training_containers.finetune import layouts

PARTS = (sys.executable, layouts.__name__, torch.__version__)  # what has to be loaded before the first fork
TOUCHING = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir", "os.chmod")


class Moment:
    """Sends the signal when the job has touched its folder often enough."""

    def __init__(self, root: str, signal: int | None, folder: str, event: int | None, delay_s: float) -> None:
        self.root, self.signal, self.folder, self.event, self.delay_s = root, signal, root + folder, event, delay_s
        self.events = 0
        self.job = os.getpid()
        sys.addaudithook(self.hook)

    def hook(self, name: str, args: tuple[Any, ...]) -> None:
        if name in TOUCHING and args and str(args[0]).startswith(self.folder) and os.getpid() == self.job:
            self.events += 1
            if self.events == self.event:
                self.come()

    def come(self) -> None:
        """A fork sends the signal, so that it comes also while the job is inside native code."""
        if self.signal is None or os.fork():
            return
        time.sleep(self.delay_s)
        if os.getppid() == self.job:
            Path(self.root + ".hit").touch()
            os.kill(self.job, self.signal)
        os._exit(0)


def run(order: dict[str, Any]) -> None:
    """The job of one order, in this process."""
    root = order["root"]
    log = os.open(root + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["OPPORTUNE_ML_ROOT"] = root
    sys.argv = ["training_containers", "train", *order.get("options", [])]
    moment = Moment(root, order.get("signal"), order.get("folder", ""), order.get("event"), order.get("delay_s", 0.0))
    if moment.event is None:
        moment.come()
    os._exit(container.main())


def main() -> None:
    """One job per line of standard input."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        begin = time.monotonic()
        job = os.fork()
        if job == 0:
            try:
                run(order)
            finally:
                os._exit(99)  # an error that the command does not turn into an exit code
        code = os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])
        print(json.dumps({"exit": code, "seconds": time.monotonic() - begin}), flush=True)


if __name__ == "__main__":
    main()
