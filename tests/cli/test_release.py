"""From nothing to a served model, to another one and back: what is written, made, waited for and said."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import cli.transfer
from shared.contracts import InstanceStatus, InstanceVersion, ModelManifest, Release, decode, encode
from shared.errors import RefusedError, UnavailableError
from shared.ports import CloudServices
from shared.releases import BY_A_PERSON, instance_key, manifest_key, model_folder, release_key
from shared.state import State
from shared.values import Standing
from tests.fakes import MemoryObjects


def manifest(version: str, files: dict[str, bytes]) -> ModelManifest:
    hashes = {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}
    scores = {"bleu1": 0.5, "exact_match": 0.5, "f1": 0.5, "rouge_l": 0.5, "examples": 9}
    plain: dict[str, Any] = dict.fromkeys(("parent_version", "job_id", "base_model"), "none") | {
        "service": "ops", "model_version": version, "trace_id": "0" * 32, "created_s": 1.0, "data_start_s": 0.0,
        "data_end_s": 1.0, "data_sha256": "0" * 64, "train_examples": 0, "eval_sha256": "0" * 64, "candidate": scores,
        "serving": None, "duration_s": 1.0, "files": hashes,
    }  # fmt: skip
    return msgspec.convert(plain, ModelManifest)


def artifact(folder: Path, version: str = "m1", weights: bytes = b"w" * 700) -> Path:
    files = {"config.json": b"{}", "model.safetensors": weights, "onnx/model.onnx": b"o" * 90}
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    (folder / "manifest.json").write_bytes(encode(manifest(version, files)))
    return folder


def upload(objects: Any, version: str) -> None:
    objects.put(f"{model_folder(version)}config.json", b"{}")
    objects.put(manifest_key(version), encode(manifest(version, {"config.json": b"{}"})))


def release_of(services: CloudServices) -> Release:
    return decode(Release, services.objects.get(release_key("ops")))


class Containers:
    """The serving side of one cloud in memory: an endpoint in steps, and an instance that follows the document."""

    def __init__(self, services: CloudServices, states: list[Standing] | None = None) -> None:
        self.services = services
        self.states = states if states is not None else [Standing("InService", ready=True)]
        self.created = 0
        self.follows = states is None
        self.cannot: dict[str, str] = {}
        self.name = f"{services.cloud} endpoint"

    def standing(self) -> Standing:
        found = self.states[0]
        if len(self.states) > 1 and self.created:
            self.states.pop(0)
        self.follows = self.follows or (found.ready and not found.lacks)
        return found

    def create(self) -> None:
        self.created += 1

    def tell(self) -> None:
        """What the instance does every two seconds."""
        if not self.follows:
            return
        try:
            release = release_of(self.services)
        except Exception:
            return
        stable = str(release.of("stable"))
        why = self.cannot.get(stable, "")
        versions = [InstanceVersion(model_version=stable, state="failed" if why else "active", reason=why)]
        active = None if why else stable
        status = InstanceStatus(
            service="ops", cloud=self.services.cloud, instance="i-1", told_s=time.time(), revision=release.revision,
            active=active, versions=tuple(versions),
        )  # fmt: skip
        self.services.objects.put(instance_key("ops", "i-1"), encode(status))


@pytest.fixture
def serving(two_clouds, monkeypatch) -> dict[str, Containers]:
    """Containers of both clouds, which look at their document whenever the command pauses."""
    found = {name: Containers(services) for name, services in two_clouds.items()}
    monkeypatch.setattr("cli.release.endpoint_setup", lambda cloud, _: found[cloud])

    def pause(_: float) -> None:
        for one in found.values():
            one.tell()

    monkeypatch.setattr("cli.releasing.time.sleep", pause)
    return found


@pytest.fixture
def model(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(cli.transfer, "PART_BYTES", 256)
    return artifact(tmp_path / "model")


def test_a_first_release_uploads_makes_the_endpoints_and_waits_until_they_serve(
    typed, two_clouds, serving, model
) -> None:
    making = [
        Standing(""),
        Standing("Creating", reason="SageMaker starts an instance"),
        Standing("InService", ready=True),
    ]
    serving["aws"].states, serving["aws"].follows = making, False
    done = typed("release", str(model), "--first", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["failed"] == {}
    for cloud, services in two_clouds.items():
        assert services.objects.get("models/m1/model.safetensors") == b"w" * 700
        assert services.objects.get("models/m1/onnx/model.onnx") == b"o" * 90
        assert release_of(services).of("stable") == "m1"
        assert release_of(services).reason == f"opportune release {BY_A_PERSON}first release"
        assert told["clouds"][cloud]["in_force_s"] >= 0
        assert told["clouds"][cloud]["revision"] == 1
    assert serving["aws"].created >= 1
    assert serving["azure"].created == 0, "an endpoint that is there is adopted"
    assert "aws: aws endpoint is Creating: SageMaker starts an instance" in done.stderr
    assert "m1 serves on 1 instance" in done.stderr


def test_a_first_release_is_over_when_the_endpoint_takes_traffic_not_when_its_instances_are_up(
    typed, serving, model
) -> None:
    waiting = Standing("Succeeded", reason="deployment blue takes no traffic yet")
    serving["azure"].states = [waiting, waiting, Standing("Succeeded", ready=True)]  # its instance tells all along
    done = typed("release", str(model), "--first", "--cloud", "azure")
    assert done.returncode == 0, done.stderr
    assert "azure endpoint is Succeeded: deployment blue takes no traffic yet" in done.stderr
    assert serving["azure"].created >= 1 and serving["azure"].states[0].ready


def test_it_may_be_repeated_and_then_changes_and_sends_nothing(typed, two_clouds, serving, model) -> None:
    assert typed("release", str(model), "--first").returncode == 0
    done = typed("release", str(model), "--first", "--json")
    assert done.returncode == 0
    for one in json.loads(done.stdout)["clouds"].values():
        assert (one["revision"], one["sent_bytes"]) == (1, 0)


class Breaks(MemoryObjects):
    """A store whose connection breaks after so many writes; counts the bytes of parts."""

    def __init__(self, writes: int) -> None:
        super().__init__("aws")
        self.left, self.part_bytes = writes, 0

    def _write(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise UnavailableError("S3", "connection reset")

    def put(self, key: str, body: bytes) -> None:
        self._write()
        super().put(key, body)

    def put_part(self, key: str, number: int, body: bytes) -> None:
        self._write()
        self.part_bytes += len(body)
        super().put_part(key, number, body)


def test_an_upload_that_broke_at_any_write_goes_on_where_it_stopped(typed, two_clouds, serving, model) -> None:
    for writes in range(6):
        store = Breaks(writes)
        two_clouds["aws"] = serving["aws"].services = two_clouds["aws"]._replace(objects=store)
        first = typed("release", str(model), "--first", "--cloud", "aws")
        assert first.returncode == 2, first.stderr
        assert "ops is NOT changed on aws: S3 is unavailable: connection reset" in first.stderr
        assert f"repeat: opportune release {model} --first --cloud aws" in first.stderr
        assert not list(store.entries(manifest_key("m1"))), "a version without a manifest is not there"
        store.left = 1000
        assert typed("release", str(model), "--first", "--cloud", "aws").returncode == 0
        assert store.part_bytes == 700, "no part was sent twice"
        assert store.get("models/m1/model.safetensors") == b"w" * 700


def test_one_cloud_away_leaves_the_other_done_and_says_what_to_repeat(
    typed, azure_away, serving, model, monkeypatch
) -> None:
    done = typed("release", str(model), "--first", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert list(told["clouds"]) == ["aws"]
    assert "connection refused" in told["failed"]["azure"]
    assert f"repeat: opportune release {model} --first --cloud azure" in done.stderr


def test_a_version_in_one_cloud_is_released_on_both(typed, two_clouds, serving) -> None:
    upload(two_clouds["azure"].objects, "m7")
    done = typed("release", "m7", "--reason", "the better one")
    assert done.returncode == 0, done.stderr
    assert two_clouds["aws"].objects.get("models/m7/config.json") == b"{}"
    assert release_of(two_clouds["aws"]).reason == f"opportune release {BY_A_PERSON}the better one"
    assert "ops on azure: m7, revision 1, in force after" in done.stdout


@pytest.mark.parametrize(("known", "says"), [(("m1", "m2"), "there are m1, m2."), ((), "there is none yet.")])
def test_an_unknown_version_names_those_there_are(
    known: tuple[str, ...], says: str, typed, two_clouds, serving
) -> None:
    for version in known:
        upload(two_clouds["aws"].objects, version)
    done = typed("release", "m9")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"no version 'm9' is uploaded; {says}" in done.stderr


def test_another_model_under_a_version_that_is_there_is_refused(typed, two_clouds, serving, model, tmp_path) -> None:
    assert typed("release", str(model), "--first").returncode == 0
    other = artifact(tmp_path / "other", weights=b"x" * 700)
    done = typed("release", str(other), "--first")
    assert done.returncode == 2
    assert "holds another model of the same version" in done.stderr
    assert two_clouds["aws"].objects.get("models/m1/model.safetensors") == b"w" * 700


def released(typed: Callable[..., Any], two_clouds: dict[str, CloudServices], *versions: str) -> None:
    for version in versions:
        for services in two_clouds.values():
            upload(services.objects, version)
        assert typed("release", version).returncode == 0


def test_a_rollback_brings_the_version_before_back_and_says_how_long_it_took(typed, two_clouds, serving) -> None:
    released(typed, two_clouds, "m1", "m2")
    done = typed("rollback", "--reason", "it shouts", "--json")
    assert done.returncode == 0, done.stderr
    for cloud, one in json.loads(done.stdout)["clouds"].items():
        assert (one["version"], one["previous"], one["revision"]) == ("m1", "m2", 3)
        assert one["in_force_s"] < 10
        assert release_of(two_clouds[cloud]).reason == f"opportune rollback {BY_A_PERSON}it shouts"
    assert typed("rollback").returncode == 0  # and a second one undoes it
    assert release_of(two_clouds["aws"]).of("stable") == "m2"


def test_a_rollback_that_was_interrupted_is_gone_on_with_and_not_undone(typed, two_clouds, serving) -> None:
    released(typed, two_clouds, "m1", "m2")
    assert typed("rollback", "--cloud", "aws", "--no-wait").returncode == 0
    assert typed("rollback").returncode == 0
    assert [release_of(services).of("stable") for services in two_clouds.values()] == ["m1", "m1"]


def test_a_rollback_to_a_version_by_name(typed, two_clouds, serving) -> None:
    released(typed, two_clouds, "m1", "m2", "m3")
    assert typed("rollback", "--to", "m1").returncode == 0
    assert release_of(two_clouds["azure"]).of("stable") == "m1"
    assert release_of(two_clouds["azure"]).of("previous") == "m3"
    wrong = typed("rollback", "--to", "m9")
    assert wrong.returncode == 2
    assert "no version 'm9'" in wrong.stderr
    assert "there are m1, m2, m3" in wrong.stderr


def test_nothing_before_is_said_with_what_there_is(typed, two_clouds, serving) -> None:
    assert "nothing is released to ops yet" in typed("rollback").stderr
    released(typed, two_clouds, "m1")
    done = typed("rollback")
    assert done.returncode == 2
    assert "no version served before; name one with --to (there are m1)" in done.stderr


def test_a_paused_service_is_said_to_be_and_changed_all_the_same(typed, two_clouds, serving) -> None:
    released(typed, two_clouds, "m1", "m2")
    assert typed("pause", "--reason", "incident 42").returncode == 0
    done = typed("rollback")
    assert done.returncode == 0
    assert "aws: ops is paused (incident 42); this is your own act and goes through" in done.stderr
    assert State(two_clouds["aws"].documents).control("ops").paused


def test_an_instance_that_cannot_load_it_ends_the_wait_with_its_words(typed, two_clouds, serving) -> None:
    released(typed, two_clouds, "m1")
    for services in two_clouds.values():
        upload(services.objects, "m2")
    serving["azure"].cannot["m2"] = "needs 900 MB, 200 MB are free"
    done = typed("release", "m2")
    assert done.returncode == 1
    assert "ops on aws: m2, revision 2, in force" in done.stdout
    assert "needs 900 MB, 200 MB are free" in done.stderr
    assert "--cloud azure" in done.stderr


@pytest.mark.parametrize(
    ("standing", "says"),
    [
        (Standing("Failed", failed=True, reason="no capacity; mend it"), "aws endpoint is Failed: no capacity"),
        (
            Standing("InService", ready=True, lacks="its containers need A=1"),
            "does not follow releases: its containers",
        ),
        (Standing(""), "aws endpoint does not exist; make it: opportune release MODEL --first"),
    ],
)
def test_an_endpoint_that_will_not_serve_ends_the_wait(standing, says, typed, two_clouds, serving) -> None:
    upload(two_clouds["aws"].objects, "m1")
    serving["aws"].states, serving["aws"].follows = [standing], False
    done = typed("release", "m1", "--cloud", "aws")
    assert done.returncode == 1
    assert says in done.stderr


def test_an_endpoint_that_is_refused_ends_the_wait_with_the_clouds_words(
    typed, two_clouds, serving, model, monkeypatch
) -> None:
    def refuse() -> None:
        raise RefusedError("SageMaker endpoint", "ResourceLimitExceeded: ml.c6i.xlarge for endpoint usage is 0")

    serving["aws"].states, serving["aws"].follows = [Standing("")], False
    monkeypatch.setattr(serving["aws"], "create", refuse)
    done = typed("release", str(model), "--first")
    assert done.returncode == 1
    assert "aws: SageMaker endpoint refused: ResourceLimitExceeded" in done.stderr
    assert "ops on azure: m1, revision 1, in force" in done.stdout


def test_it_does_not_wait_for_ever(typed, two_clouds, serving) -> None:
    upload(two_clouds["aws"].objects, "m1")
    serving["aws"].states, serving["aws"].follows = [Standing("Creating", reason="starts")], False
    done = typed("release", "m1", "--cloud", "aws", "--timeout", "0.0001")
    assert done.returncode == 1
    assert "not in force after 0.0001 minutes: aws endpoint is Creating: starts" in done.stderr
    assert release_of(two_clouds["aws"]).of("stable") == "m1"


def test_without_waiting_missing_endpoints_are_asked_for_all_the_same(typed, two_clouds, serving, model) -> None:
    serving["aws"].states, serving["aws"].follows = [Standing("")], False
    done = typed("release", str(model), "--first", "--no-wait", "--cloud", "aws")
    assert done.returncode == 0, done.stderr
    assert serving["aws"].created == 1
    assert "not in force yet" in done.stdout


def test_a_damaged_document_is_replaced_and_a_newer_programs_is_not(typed, two_clouds, serving) -> None:
    released(typed, two_clouds, "m1", "m2")
    objects = two_clouds["aws"].objects
    objects.put(release_key("ops"), b"{oops")
    assert typed("release", "m1").returncode == 0
    assert release_of(two_clouds["aws"]).revision == 3, "no revision is used twice"
    objects.put(release_key("ops"), b'{"version": 9}')
    done = typed("release", "m2")
    assert done.returncode == 1
    assert "upgrade it" in done.stderr


def test_releases_shows_versions_instances_and_why_not(typed, two_clouds, serving) -> None:
    released(typed, two_clouds, "m1")
    serving["aws"].cannot["m2"] = "sha256 differs"
    upload(two_clouds["aws"].objects, "m2")
    assert typed("release", "m2", "--cloud", "aws").returncode == 1
    shown = typed("releases").stdout
    assert "release     revision 2" in shown
    assert "NOT in force" in shown
    assert "m2 failed: sha256 differs" in shown
    assert "uploaded    m1, m2" in shown
    told = json.loads(typed("releases", "--json").stdout)["clouds"]
    assert told["azure"]["in_force"] is True
    assert told["azure"]["instances"][0]["active"] == "m1"
    assert told["aws"]["in_force"] is False
    assert told["aws"]["versions"] == ["m1", "m2"]


def test_releases_of_nothing_says_how_to_begin(typed, two_clouds) -> None:
    done = typed("releases")
    assert done.returncode == 0
    assert "none yet: opportune release MODEL --first" in done.stdout
