"""Brings a model's files to where a cloud's containers look for them, over as many runs as it takes.

Inside a cloud the store copies by itself. Between clouds a file goes in parts, a few of which are in memory at a time;
what is there already is not sent again. The manifest comes last: a version without one is not there yet.
"""

from __future__ import annotations

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from functions.clouds import Deps
from shared.artifact import MANIFEST
from shared.contracts import Cloud, JobRecord, ModelManifest, decode
from shared.deadline import Deadline
from shared.errors import ContractError, ModelError, UnavailableError
from shared.ports import ObjectStore
from shared.releases import manifest_key, model_folder

log = logging.getLogger("opportune.functions.copying")

#: of a file between clouds; at least 5 MiB, by S3
PART_BYTES: Final = 8 * 1024 * 1024
#: parts on their way at once: more fill the line better, and need memory
AT_ONCE: Final = 3
#: what a run keeps for the release itself and for writing down what was done
RESERVE_S: Final = 5.0


def bring(deps: Deps, record: JobRecord, cloud: Cloud) -> str:
    """Copy an accepted job's model to `cloud`, as far as the run's time goes. What is left, in words; "" when nothing.

    Raises:
        ModelError: the model is not what its manifest says, or another one lies in its place.
        UnavailableError, NotFoundError: a store, or the training service, did not answer.
    """
    version = record.model_version
    assert version is not None, "an accepted job has a model version"
    origin, target = deps.clouds[record.job.cloud], deps.clouds[cloud].objects
    if _is_there(origin.objects, version):
        if origin.objects is target:
            return ""
        prefix = model_folder(version)
    else:
        prefix = origin.training.model_prefix(record.job.job_id)
    return copy_model(origin.objects, prefix, target, version, deps.deadline)


def _is_there(store: ObjectStore, version: str) -> bool:
    key = manifest_key(version)
    return any(entry.key == key for entry in store.entries(key))


def copy_model(source: ObjectStore, prefix: str, target: ObjectStore, version: str, deadline: Deadline) -> str:
    """Copy the files that the manifest below `prefix` lists. What is left, in words; "" when nothing.

    Raises:
        ModelError: no such files, or `target` has another model of this version.
        UnavailableError, NotFoundError: a store did not answer.
    """
    folder, raw = model_folder(version), source.get(f"{prefix}{MANIFEST}")
    there = {entry.key.removeprefix(folder): entry.size for entry in target.entries(folder)}
    if MANIFEST in there:
        if target.get(f"{folder}{MANIFEST}") != raw:
            raise ModelError(f"another model lies in {target.uri(folder)}; it is not overwritten")
        return ""
    sizes = {entry.key.removeprefix(prefix): entry.size for entry in source.entries(prefix)}
    try:
        files = sorted(decode(ModelManifest, raw).files)
    except ContractError as exc:
        raise ModelError(f"{source.uri(prefix)}{MANIFEST}: {exc}") from exc
    if lacking := [name for name in files if name not in sizes]:
        raise ModelError(f"{source.uri(prefix)} lacks {lacking[0]}")
    waiting = [name for name in files if there.get(name) != sizes[name]]
    for number, name in enumerate(waiting):
        left_bytes = sum(sizes[other] for other in waiting[number:])
        from_key, to_key = f"{prefix}{name}", f"{folder}{name}"
        if deadline.left() < RESERVE_S:
            return _left(left_bytes)
        if source is target:
            source.copy(from_key, to_key)
        elif missing := _in_parts(source, from_key, target, to_key, sizes[name], deadline):
            return _left(left_bytes - sizes[name] + missing)
    target.put(f"{folder}{MANIFEST}", raw)
    log.info("copied a model to %s", target.uri(folder), extra={"action": "copy", "model_version": version})
    return ""


def _left(size: int) -> str:
    return f"{max(1, round(size / 1e6))} MB of it are still to be copied"


def _in_parts(
    source: ObjectStore, from_key: str, target: ObjectStore, to_key: str, size: int, deadline: Deadline
) -> int:
    """Send the parts that are not there yet. How many bytes are left; 0 when the file is whole."""
    if size <= PART_BYTES:
        target.put(to_key, _part(source, from_key, 0, size))
        return 0
    count, there = math.ceil(size / PART_BYTES), target.parts(to_key)
    lengths = {number: min(PART_BYTES, size - (number - 1) * PART_BYTES) for number in range(1, count + 1)}
    waiting = [number for number, length in lengths.items() if there.get(number) != length]

    def send(number: int) -> None:
        target.put_part(to_key, number, _part(source, from_key, (number - 1) * PART_BYTES, lengths[number]))

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="copy") as pool:
        while waiting:
            if deadline.left() < RESERVE_S:
                return sum(lengths[number] for number in waiting)
            # the first part begins the upload; two that both began it would begin two
            at_once = AT_ONCE if there else 1
            sent, waiting = waiting[:at_once], waiting[at_once:]
            there = {**there, **{number: lengths[number] for number in sent}}
            list(pool.map(send, sent))
    target.finish_parts(to_key, count)
    return 0


def _part(source: ObjectStore, key: str, start: int, length: int) -> bytes:
    body = source.get_range(key, start, length) if length else b""
    if len(body) != length:
        raise UnavailableError(source.uri(key), f"{len(body)} of {length} bytes came from {start} on")
    return body
