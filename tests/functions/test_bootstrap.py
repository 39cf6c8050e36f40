import gc
from types import SimpleNamespace

import msgspec
import pytest

from functions import bootstrap
from shared.errors import ConfigurationError
from shared.settings import Settings


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    bootstrap.forget()
    yield
    bootstrap.forget()


@pytest.mark.parametrize(
    ("cloud", "account", "region", "taking_part"),
    [
        ("aws", "", "", ("aws",)),
        ("aws", "store", "", ("aws", "azure")),
        ("azure", "store", "", ("azure",)),
        ("azure", "store", "eu-west-1", ("aws", "azure")),
    ],
)
def test_a_cloud_takes_part_when_it_is_configured(monkeypatch, cloud, account, region, taking_part):
    if region:
        monkeypatch.setenv("AWS_REGION", region)
    assert bootstrap.configured_clouds(Settings(cloud=cloud, azure_storage_account=account)) == taking_part


def test_the_function_knows_its_cloud_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("OPPORTUNE_CLOUD", "aws")
    assert bootstrap.settings("azure").cloud == "azure"


def test_dependencies_are_built_once_and_without_any_network():
    first = bootstrap.deps("aws")
    assert first is bootstrap.deps("aws")
    assert first.home == first.own.cloud == "aws"


def test_a_rotated_secret_is_read_again_after_minutes_and_an_old_one_serves_while_it_cannot_be(monkeypatch):
    secrets, clock = {"value": "old"}, {"s": 1000.0}

    def resolved(env):
        if secrets["value"] is None:
            raise ConfigurationError("OPPORTUNE_PROMETHEUS_TOKEN", "ssm:x", "a parameter: throttled")
        return {**env, "OPPORTUNE_PROMETHEUS_TOKEN": secrets["value"]}

    monkeypatch.setattr("functions.aws.secrets.resolved", resolved)
    monkeypatch.setattr(bootstrap.time, "monotonic", lambda: clock["s"])
    first, app = bootstrap.deps("aws"), bootstrap.web_app("aws")
    secrets["value"] = "new"
    assert bootstrap.deps("aws") is first, "not in every tick"
    clock["s"] += bootstrap.SECRETS_S
    assert bootstrap.deps("aws").settings.prometheus_token == "new"
    assert bootstrap.web_app("aws") is not app, "the old operator token is valid no more"
    secrets["value"] = None
    clock["s"] += bootstrap.SECRETS_S
    assert bootstrap.deps("aws").settings.prometheus_token == "new"


def test_a_wrong_setting_is_named(monkeypatch):
    monkeypatch.setenv("OPPORTUNE_SLOT_SECONDS", "soon")
    with pytest.raises(ConfigurationError, match="OPPORTUNE_SLOT_SECONDS is 'soon'"):
        bootstrap.deps("aws")


def test_azure_without_an_account_says_what_to_set():
    services = bootstrap.cloud_services("azure", msgspec.structs.replace(Settings(), cloud="azure"))
    with pytest.raises(ConfigurationError, match="OPPORTUNE_AZURE_STORAGE_ACCOUNT"):
        services.documents.get("job", "x")


def test_the_processs_azure_identity_asks_for_the_metrics(monkeypatch, http_server):
    seen = []

    def answer(asked):
        seen.append(asked.headers["Authorization"])
        return 200, b'{"data": {"result": []}}'

    class Identity:
        def get_token(self, scope):
            return SimpleNamespace(token=f"for {scope}")

    monkeypatch.setattr(bootstrap, "azure_credential", Identity)
    with http_server(answer) as url:
        monkeypatch.setenv("OPPORTUNE_PROMETHEUS_URL_AZURE", url)
        monkeypatch.setenv("OPPORTUNE_PROMETHEUS_AUTH_AZURE", "entra")
        bootstrap.deps("aws").metrics().window(0, 60, 60)
    assert seen == ["Bearer for https://prometheus.monitor.azure.com/.default"]


def test_the_policy_is_the_configured_one(monkeypatch):
    monkeypatch.setenv("OPPORTUNE_POLICY", "never")
    assert bootstrap.deps("aws").policy().name == "never"


def test_the_web_app_builds_without_any_network():
    client = bootstrap.web_app("aws").test_client()
    assert client.get("/healthz").json["status"] == "ok"


def test_after_the_first_tick_the_collector_leaves_alone_what_is_loaded():
    bootstrap.settle.cache_clear()
    before = gc.get_freeze_count()
    try:
        bootstrap.settle()
        assert gc.get_freeze_count() > before
        first = gc.get_freeze_count()
        kept = [[] for _ in range(100)]
        bootstrap.settle()
        assert gc.get_freeze_count() <= first, "later garbage is collected as ever"
        assert len(kept) == 100
    finally:
        gc.unfreeze()
        bootstrap.settle.cache_clear()


def test_a_machine_without_a_price_is_refused_at_start(monkeypatch):
    monkeypatch.setenv("OPPORTUNE_SAGEMAKER_INSTANCE_TYPE", "ml.x9.huge")
    bootstrap.forget()
    with pytest.raises(ConfigurationError, match=r"OPPORTUNE_PRICE_USD_PER_HOUR_AWS is not set.*ml\.x9\.huge"):
        bootstrap.deps("aws")
    bootstrap.forget()
