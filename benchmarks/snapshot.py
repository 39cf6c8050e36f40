"""What a training start takes for its snapshot of the labels, however many there are.

    python -m benchmarks.snapshot
    python -m benchmarks.snapshot --case large --latency-ms 50 --json

| case | the last day's feedback |
|---|---|
| day | 200 labels a second on both clouds together: 17 million pairs in 270,000 objects of 64 |
| large | 4,000 labels of 60 KB, 64 an object |
| trickle | a label every five seconds on each cloud, an object each: as many requests as pairs |

Each case runs in a process of its own that has loaded what the packaged function loads, both clouds' SDKs included. The
stores are simulated: keys and contents are made when they are asked for, every page of a listing and every object takes
--latency-ms and what 50 MB/s need. `idle_mb` is the process before, `peak_mb` the most that was ever resident.
"""

from __future__ import annotations

import argparse
import bisect
import datetime as dt
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

from shared.contracts import CLOUDS, Cloud, FeedbackPair, encode
from shared.errors import NotFoundError
from shared.values import ObjectEntry

#: what serverless.yml gives the function that starts trainings
MEMORY_MB: Final = 512.0
TIME_S: Final = 60.0
NOW: Final = 1_800_000_000.0  # 2027-01-15 08:00
DAY_S: Final = 86_400.0
_PAGE: Final = 1000
_BYTES_PER_S: Final = 50e6


@dataclass(frozen=True)
class Feedback:
    """A day of labels in one store."""

    objects: int
    pairs_each: int
    answer_bytes: int


CASES: Final = {
    "day": Feedback(135_000, 64, 40),
    "large": Feedback(32, 64, 60_000),
    "trickle": Feedback(17_280, 1, 40),
}


@dataclass(frozen=True)
class Found:
    """What a case took."""

    objects_there: int
    pairs_there: int
    pairs: int
    snapshot_mb: float
    left_out: str
    requests: int
    seconds: float
    idle_mb: float
    peak_mb: float


class SimulatedStore:
    """The object store of one cloud with a day's feedback in it, up to NOW; what is written is only counted."""

    def __init__(self, cloud: Cloud, feedback: Feedback, latency_s: float = 0.0) -> None:
        self.requests = 0
        self.written: dict[str, int] = {}
        self._cloud, self._feedback, self._latency_s = cloud, feedback, latency_s
        self._lock = threading.Lock()
        self._size = len(self._body(0)) if feedback.objects else 0

    def entries(self, prefix: str) -> Iterator[ObjectEntry]:
        """What lies under the prefix, a page a request."""
        begin = bisect.bisect_left(range(self._feedback.objects), prefix, key=self._key)
        self._request()
        for at in range(begin, self._feedback.objects):
            if not self._key(at).startswith(prefix):
                return
            if at > begin and (at - begin) % _PAGE == 0:
                self._request()
            yield ObjectEntry(self._key(at), self._size, self._when(at))

    def get(self, key: str) -> bytes:
        """An object's content."""
        self._request()
        if not key.startswith("feedback/"):
            raise NotFoundError(f"{key} does not exist")
        time.sleep(self._size / _BYTES_PER_S if self._latency_s else 0.0)
        return self._body(int(key.rpartition("-")[2].removesuffix(".jsonl")))

    def put(self, key: str, body: bytes) -> None:
        """Count it."""
        self._request()
        self.written[key] = len(body)

    def put_part(self, key: str, number: int, body: bytes) -> None:
        """Count it."""
        self._request()
        self.written[f"{key} part {number}"] = len(body)

    def finish_parts(self, key: str, count: int) -> None:
        """Count them together."""
        self._request()
        self.written[key] = sum(self.written.pop(f"{key} part {number}") for number in range(1, count + 1))

    def uri(self, key: str) -> str:
        """An address that nobody reads."""
        return f"simulated://{self._cloud}/{key}"

    def _request(self) -> None:
        with self._lock:
            self.requests += 1
        time.sleep(self._latency_s)

    def _when(self, at: int) -> float:
        return NOW - DAY_S + (at + 1) * DAY_S / self._feedback.objects - 1.0

    def _key(self, at: int) -> str:
        return f"feedback/{self._cloud}/{dt.datetime.fromtimestamp(self._when(at), dt.UTC):%Y%m%dT%H%M%S}-{at:09}.jsonl"

    def _body(self, at: int) -> bytes:
        pairs = [
            FeedbackPair(
                question=f"which one is {self._cloud} {at} {n}?",
                answers=(f"{at} {n} ".ljust(self._feedback.answer_bytes, "x"),),
                received_s=self._when(at),
            )
            for n in range(self._feedback.pairs_each)
        ]
        return b"".join(encode(pair) + b"\n" for pair in pairs)


def run(name: str, latency_s: float) -> Found:
    """One case, in this process."""
    from functions.clouds import Deps
    from functions.retraining.snapshot import Wanted, take
    from functions.retraining.start import SNAPSHOT_SHARE
    from shared.deadline import Deadline
    from shared.ports import CloudServices
    from shared.settings import Settings

    _load_sdks()
    settings = Settings()
    feedback = CASES[name]
    stores = {cloud: SimulatedStore(cloud, feedback, latency_s) for cloud in CLOUDS}
    nothing: Any = None
    deps = Deps(
        settings=settings,
        clouds={
            cloud: CloudServices(cloud, nothing, cast(Any, store), nothing, nothing, nothing)
            for cloud, store in stores.items()
        },
        metrics=nothing,
        policy=nothing,
    ).guarded(settings.tick_deadline_seconds)
    wanted = Wanted(
        start_s=NOW - DAY_S,
        end_s=NOW,
        seen_s=0.0,
        pairs=settings.max_training_pairs,
        bytes=int(settings.max_training_mb * 2**20),
        new=settings.min_new_pairs,
    )
    idle_mb = _resident_mb("VmRSS")
    begun = time.perf_counter()
    guarded = {cloud: services.objects for cloud, services in deps.clouds.items()}
    taken = take(guarded, "aws", "qa-1", wanted, NOW, Deadline(deps.deadline.left() * SNAPSHOT_SHARE))
    return Found(
        objects_there=len(CLOUDS) * feedback.objects,
        pairs_there=len(CLOUDS) * feedback.objects * feedback.pairs_each,
        pairs=taken.pairs,
        snapshot_mb=round(taken.bytes / 2**20, 1),
        left_out=taken.left_out,
        requests=sum(store.requests for store in stores.values()),
        seconds=round(time.perf_counter() - begun, 2),
        idle_mb=round(idle_mb, 1),
        peak_mb=round(_resident_mb("VmHWM"), 1),
    )


def _load_sdks() -> None:
    """What the function has loaded by the time it reads feedback."""
    import azure.data.tables  # noqa: TID251 - plays the function
    import azure.identity  # noqa: TID251
    import azure.storage.blob  # noqa: TID251
    import azure.storage.queue  # noqa: F401, TID251
    import boto3  # noqa: TID251

    import functions.aws.retrain  # noqa: F401

    for service in ("dynamodb", "s3", "sqs", "sagemaker"):
        boto3.client(service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")


def _resident_mb(which: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{which}:")[1].split()[0]) / 1024


def measure(names: list[str], latency_ms: float) -> dict[str, Found]:
    """Each case in a process of its own."""
    found = {}
    for name in names:
        print(f"case {name}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks.snapshot", "--inside", name, "--latency-ms", str(latency_ms)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        if done.returncode:
            raise SystemExit(f"snapshot: case {name} ended with exit code {done.returncode}")
        found[name] = Found(**json.loads(done.stdout))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="instead of all of them; may be repeated")
    parser.add_argument("--latency-ms", type=float, default=30.0, help="of each request of a store")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--inside", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(asdict(run(options.inside, options.latency_ms / 1e3))))
        return
    found = measure(options.case or list(CASES), options.latency_ms)
    limits = {"memory_mb": MEMORY_MB, "seconds": TIME_S}
    if options.json:
        print(json.dumps({"limits": limits, "cases": {name: asdict(case) for name, case in found.items()}}))
        return
    print(f"limits of the function: {MEMORY_MB:.0f} MB, {TIME_S:.0f} s; half of each is the goal")
    print(f"{'':14}" + "".join(f"{name:>12}" for name in found))
    for field in Found.__dataclass_fields__:
        if field != "left_out":
            print(f"{field:14}" + "".join(f"{getattr(case, field):>12,}" for case in found.values()))
    for name, case in found.items():
        print(f"{name}: {case.left_out or 'nothing was left out'}")


if __name__ == "__main__":
    main()
