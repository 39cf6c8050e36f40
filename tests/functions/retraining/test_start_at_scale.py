"""A training start on more labels than the function could hold or read: half of its memory and time are enough."""

import logging
import time
import tracemalloc

import pytest

from benchmarks.snapshot import CASES, MEMORY_MB, TIME_S, SimulatedStore
from functions.retraining.snapshot import data_key
from functions.retraining.start import Outcome, start_training
from shared.contracts import CLOUDS

JOB = "qa-20270115t080000"
#: what the function's process takes before it reads anything, as benchmarks.snapshot prints it
IDLE_MB = 100.0


@pytest.fixture
def flooded(world):
    """A function: case -> the world with that day's feedback in both stores."""

    def flood(case):
        for cloud in CLOUDS:
            store = SimulatedStore(cloud, CASES[case])
            world.clouds[cloud] = world.clouds[cloud]._replace(objects=store)
        return world

    return flood


@pytest.mark.parametrize(("case", "pairs", "requests"), [("day", 20_000, 400), ("large", 1116, 60)])
def test_it_stays_below_half_of_its_limits(flooded, now, caplog, case, pairs, requests):
    world = flooded(case)
    begun = time.monotonic()
    tracemalloc.start()
    with caplog.at_level(logging.INFO, "opportune"):
        assert start_training(world.deps(), world.message(), now) is Outcome.STARTED
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.monotonic() - begun < TIME_S / 2
    assert peak / 2**20 < MEMORY_MB / 2 - IDLE_MB
    assert sum(services.objects.requests for services in world.clouds.values()) < requests
    (told,) = (record for record in caplog.records if record.message == "took a snapshot of the feedback")
    assert (told.pairs, told.new, told.skipped) == (pairs, pairs, {})
    assert told.left_out == "at most 20000 pairs and 64 MB are trained on, the newest ones"
    assert world.clouds["aws"].objects.written[data_key(JOB)] == told.bytes <= 64 * 2**20


def test_the_newest_labels_of_both_clouds_are_the_ones_taken(flooded, now):
    world = flooded("day")
    read = []
    for services in world.clouds.values():
        get = services.objects.get
        services.objects.get = lambda key, get=get: (read.append(key), get(key))[1]
    start_training(world.deps(max_training_pairs=640), world.message(), now)
    shards = [key for key in read if key.startswith("feedback/")]
    assert {key.split("/")[1] for key in shards} == {"aws", "azure"}
    assert min(key.rpartition("/")[2] for key in shards) > "20270115T075900"
