"""infra/azure/main.json: everything it names exists, and no identity may do more than it needs."""

import json
import re

import pytest

from local.runtimes import ROOT
from shared.settings import Settings

TEMPLATE = json.loads((ROOT / "infra/azure/main.json").read_text())
RESOURCES = TEMPLATE["resources"]
#: roles that would be too broad anywhere
BROAD = {
    "8e3af657-a8ff-443c-a75c-2fe8c4bcb635": "Owner",
    "b24988ac-6180-42a0-ab88-20f7382dd24c": "Contributor",
    "17d1049b-9a84-46fb-8f53-869881c3d3ab": "Storage Account Contributor",
    "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9": "User Access Administrator",
}


def texts(value):
    """Every string below `value`."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield name
            yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)
    elif isinstance(value, str):
        yield value


def segments(expression):
    """A resource's name expression as the arguments that resourceId() would take."""
    inner = expression[1:-1]
    match = re.fullmatch(r"format\('([^']*)', (.*)\)", inner)
    if not match or "/" not in match[1]:
        return [inner]
    arguments = re.split(r", (?![^(]*\))", match[2])
    return [arguments[int(p[1])] if re.fullmatch(r"\{\d\}", p) else f"'{p}'" for p in match[1].split("/")]


DEFINED = {(r["type"], tuple(segments(r["name"]))) for r in RESOURCES}


def test_every_expression_closes_its_brackets():
    for text in texts(TEMPLATE):
        if text.startswith("["):
            assert text.endswith("]"), text
            plain = re.sub(r"'[^']*'", "", text)
            assert plain.count("(") == plain.count(")"), text


def test_every_parameter_and_variable_exists_and_is_used():
    used = "\n".join(texts(TEMPLATE))
    for kind in ("parameters", "variables"):
        named = set(re.findall(rf"{kind}\('(\w+)'\)", used))
        assert named == set(TEMPLATE[kind])


def test_every_resource_that_is_referred_to_is_defined():
    pattern = r"\bresourceId\('([\w./]+)', ((?:[^()]|\([^()]*\))*)\)"
    named = [found for text in texts(RESOURCES) for found in re.findall(pattern, text)]
    assert len(named) > 40
    for kind, arguments in named:
        assert (kind, tuple(re.split(r", (?![^(]*\))", arguments))) in DEFINED


def test_no_key_is_used_where_an_identity_can_do():
    assert not [
        text for text in texts(TEMPLATE) if re.search(r"listKeys|listSecrets|AccountKey|SharedAccess", text, re.I)
    ]
    accounts = [r for r in RESOURCES if r["type"] == "Microsoft.Storage/storageAccounts"]
    assert len(accounts) == 2
    for account in accounts:
        assert account["properties"]["allowSharedKeyAccess"] is False
        assert account["properties"]["allowBlobPublicAccess"] is False
        assert account["properties"]["minimumTlsVersion"] == "TLS1_2"


def test_every_role_is_narrow_and_scoped_to_one_resource():
    roles = TEMPLATE["variables"]["roles"]
    assert not set(roles.values()) & set(BROAD)
    assignments = [r for r in RESOURCES if r["type"] == "Microsoft.Authorization/roleAssignments"]
    assert assignments
    for assignment in assignments:
        assert assignment["scope"].startswith("[resourceId("), "never the resource group"
        (role,) = re.findall(r"variables\('roles'\)\.(\w+)", assignment["properties"]["roleDefinitionId"])
        assert role in roles
    names = [a["name"] for a in assignments]
    assert len(set(names)) == len(names)


def app_settings():
    (site,) = [r for r in RESOURCES if r["type"] == "Microsoft.Web/sites"]
    return {s["name"]: s["value"] for s in site["properties"]["siteConfig"]["appSettings"]}


def test_the_functions_get_only_settings_that_exist():
    known = {f"OPPORTUNE_{name.upper()}" for name in Settings.__struct_fields__}
    bindings = {"OPPORTUNE_SCHEDULE", "OPPORTUNE_STORAGE__queueServiceUri"}
    bindings |= {"OPPORTUNE_STORAGE__credential", "OPPORTUNE_STORAGE__clientId"}
    assert {name for name in app_settings() if name.startswith("OPPORTUNE_")} <= known | bindings


@pytest.mark.parametrize("name", ["OPPORTUNE_PROMETHEUS_TOKEN", "OPPORTUNE_OPERATOR_TOKEN"])
def test_a_secret_is_only_referred_to(name):
    assert "@Microsoft.KeyVault(" in app_settings()[name]


def test_the_parameter_file_names_every_parameter_so_that_a_second_deployment_resets_none():
    """What a command leaves out goes back to its default: mode, budget, tokens, the address that alarms go to."""
    example = json.loads((ROOT / "infra/azure/parameters.example.json").read_text())["parameters"]
    assert set(example) == set(TEMPLATE["parameters"]) - {"location"}
    own = {"prometheusUrl", "alarmEmail"}
    for name, given in example.items():
        assert (given["value"] == TEMPLATE["parameters"][name]["defaultValue"]) == (name not in own)


def test_the_role_in_aws_is_part_of_the_template_and_unset_without_one():
    """Settings made by hand are gone after the next deployment; and a region alone would mean that AWS takes part."""
    for name in ("AWS_ROLE_ARN", "AWS_ROLE_AUDIENCE", "AWS_REGION"):
        assert f"[if(empty(parameters('awsRoleArn')), 'NO_{name}', '{name}')]" in app_settings()


def test_the_poison_queue_is_the_one_the_functions_host_would_use():
    assert TEMPLATE["variables"]["poisonQueue"] == "[format('{0}-poison', variables('queue'))]"


def test_the_app_runs_on_flex_consumption_with_the_packaged_python():
    (site,) = [r for r in RESOURCES if r["type"] == "Microsoft.Web/sites"]
    assert site["properties"]["functionAppConfig"]["runtime"] == {"name": "python", "version": "3.13"}
    (plan,) = [r for r in RESOURCES if r["type"] == "Microsoft.Web/serverfarms"]
    assert plan["sku"]["name"] == "FC1"


def test_every_alert_reaches_the_action_group():
    alerts = [r for r in RESOURCES if r["type"] == "Microsoft.Insights/scheduledQueryRules"]
    told = {alert["name"].split("-", 1)[1].split("'")[0] for alert in alerts}
    assert told == {"dead-letters", "tick-failing", "tick-missing", "http-errors"}
    assert all("actionGroups" in alert["properties"]["actions"]["actionGroups"][0] for alert in alerts)


#: what Azure Resource Manager refuses a resource without, as its published schemas say
REQUIRED = {
    "Microsoft.Authorization/roleAssignments": ["properties.roleDefinitionId", "properties.principalId"],
    "Microsoft.EventGrid/systemTopics": ["location", "properties.source", "properties.topicType"],
    "Microsoft.EventGrid/systemTopics/eventSubscriptions": ["properties.destination.endpointType"],
    "Microsoft.Insights/actionGroups": ["location", "properties.groupShortName", "properties.enabled"],
    "Microsoft.Insights/components": ["location", "kind", "properties.Application_Type"],
    "Microsoft.Insights/scheduledQueryRules": [
        *("location", "properties.criteria.allOf", "properties.evaluationFrequency"),
        *("properties.windowSize", "properties.scopes", "properties.severity"),
    ],
    "Microsoft.KeyVault/vaults": ["location", "properties.sku.name", "properties.sku.family", "properties.tenantId"],
    "Microsoft.MachineLearningServices/workspaces": [
        *("location", "identity.type", "properties.storageAccount"),
        *("properties.keyVault", "properties.applicationInsights"),
    ],
    "Microsoft.MachineLearningServices/workspaces/computes": ["location", "properties.computeType"],
    "Microsoft.MachineLearningServices/workspaces/datastores": [
        *("properties.datastoreType", "properties.credentials.credentialsType"),
        *("properties.accountName", "properties.containerName"),
    ],
    "Microsoft.MachineLearningServices/workspaces/onlineEndpoints": [
        *("location", "identity.type", "properties.authMode"),
    ],
    "Microsoft.ManagedIdentity/userAssignedIdentities": ["location"],
    "Microsoft.OperationalInsights/workspaces": ["location"],
    "Microsoft.Storage/storageAccounts": ["location", "kind", "sku.name"],
    "Microsoft.Storage/storageAccounts/blobServices": [],
    "Microsoft.Storage/storageAccounts/blobServices/containers": [],
    "Microsoft.Storage/storageAccounts/queueServices": [],
    "Microsoft.Storage/storageAccounts/queueServices/queues": [],
    "Microsoft.Storage/storageAccounts/tableServices": [],
    "Microsoft.Storage/storageAccounts/tableServices/tables": [],
    "Microsoft.Web/serverfarms": ["location", "sku.name", "sku.tier"],
    "Microsoft.Web/sites": [
        *("location", "kind", "properties.serverFarmId", "properties.functionAppConfig.runtime.name"),
        *("properties.functionAppConfig.deployment.storage.value", "properties.functionAppConfig.scaleAndConcurrency"),
    ],
}


def test_every_resource_has_what_the_schema_of_its_type_requires():
    assert {r["type"] for r in RESOURCES} == set(REQUIRED)
    missing = []
    for resource in RESOURCES:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d(-preview)?", resource["apiVersion"])
        assert resource["name"]
        for path in REQUIRED[resource["type"]]:
            value = resource
            for part in path.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is None:
                missing.append(f"{resource['type']}: {path}")
    assert not missing
