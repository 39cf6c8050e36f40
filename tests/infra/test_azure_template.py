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
    assert len(accounts) == 3, "data, and one of each app's host"
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


SITES = {name: r for r in RESOURCES if r["type"] == "Microsoft.Web/sites" for name in [r["name"]]}
SCHEDULER, HTTP = "[variables('site')]", "[variables('httpSite')]"
#: settings of metrics per cloud, which the deployment already gives
AWAITED = {f"OPPORTUNE_PROMETHEUS_{part}_{cloud}" for part in ("URL", "AUTH") for cloud in ("AWS", "AZURE")}


def app_settings(site):
    return {s["name"]: s["value"] for s in SITES[site]["properties"]["siteConfig"]["appSettings"]}


@pytest.mark.parametrize("site", SITES)
def test_the_functions_get_only_settings_that_exist(site):
    known = {f"OPPORTUNE_{name.upper()}" for name in Settings.__struct_fields__}
    bindings = {"OPPORTUNE_SCHEDULE", "OPPORTUNE_STORAGE__queueServiceUri", "OPPORTUNE_FUNCTIONS"}
    bindings |= {"OPPORTUNE_STORAGE__credential", "OPPORTUNE_STORAGE__clientId"}
    assert {name for name in app_settings(site) if name.startswith("OPPORTUNE_")} <= known | bindings | AWAITED


@pytest.mark.parametrize("name", ["OPPORTUNE_PROMETHEUS_TOKEN", "OPPORTUNE_OPERATOR_TOKEN"])
@pytest.mark.parametrize("site", SITES)
def test_a_secret_is_only_referred_to(site, name):
    assert "@Microsoft.KeyVault(" in app_settings(site)[name]


def test_the_parameter_file_names_every_parameter_so_that_a_second_deployment_resets_none():
    """What a command leaves out goes back to its default: mode, budget, tokens, the address that alarms go to."""
    example = json.loads((ROOT / "infra/azure/parameters.example.json").read_text())["parameters"]
    assert set(example) == set(TEMPLATE["parameters"]) - {"location"}
    for name, given in example.items():
        assert (given["value"] == TEMPLATE["parameters"][name]["defaultValue"]) == (name != "alarmEmail")


def test_nothing_of_what_a_release_changes_is_in_the_template():
    """A second deployment would set it back: an endpoint's traffic, its deployments."""
    assert not [r["type"] for r in RESOURCES if "onlineEndpoints" in r["type"]]


def test_both_clouds_know_each_others_names():
    """Queue and service are called the same on both; the other names follow from the account."""
    for site in SITES:
        settings = app_settings(site)
        assert settings["OPPORTUNE_TABLE"] == settings["OPPORTUNE_SAGEMAKER_ENDPOINT"] == "[variables('name')]"
        assert settings["OPPORTUNE_BUCKET"] == "[format('{0}-{1}', variables('name'), parameters('awsAccount'))]"
        for name in ("AWS_ROLE_ARN", "AWS_ROLE_AUDIENCE", "AWS_REGION"):
            assert f"[if(variables('withAws'), '{name}', 'NO_{name}')]" in settings
    assert TEMPLATE["variables"]["table"] == "[replace(variables('name'), '-', '')]", "as the adapter asks for it"


def test_the_poison_queue_is_the_one_the_functions_host_would_use():
    assert TEMPLATE["variables"]["poisonQueue"] == "[format('{0}-poison', variables('queue'))]"


def test_the_apps_run_on_flex_consumption_with_the_packaged_python():
    for site in SITES.values():
        assert site["properties"]["functionAppConfig"]["runtime"] == {"name": "python", "version": "3.13"}
    plans = [r for r in RESOURCES if r["type"] == "Microsoft.Web/serverfarms"]
    assert [plan["sku"]["name"] for plan in plans] == ["FC1", "FC1"], "such a plan holds one app"


# --- what answers anybody


def of_site(site):
    """The one identity that the code in an app can get tokens of."""
    (identity,) = SITES[site]["identity"]["userAssignedIdentities"]
    return re.findall(r"variables\('(\w+)'\)", identity)[0]


def given(identity):
    """(role, scope, condition) of every assignment to an identity."""
    return [
        (
            re.findall(r"variables\('roles'\)\.(\w+)", r["properties"]["roleDefinitionId"])[0],
            r["scope"],
            r["properties"].get("condition", ""),
        )
        for r in RESOURCES
        if r["type"].endswith("/roleAssignments") and f"variables('{identity}')" in r["properties"]["principalId"]
    ]


def test_the_app_that_answers_requests_has_neither_the_schedulers_functions_nor_its_identity():
    assert app_settings(HTTP)["OPPORTUNE_FUNCTIONS"] == "http"
    assert set(app_settings(SCHEDULER)["OPPORTUNE_FUNCTIONS"].split(",")) == {"schedule", "retrain", "training-events"}
    assert (of_site(SCHEDULER), of_site(HTTP)) == ("name", "httpName")
    data = {role for role, scope, _ in given("httpName") if "'httpStorage'" not in scope}
    assert data == {"ask", "blobReader", "metricsPublisher", "queueReader", "tableReader"}
    assert not [scope for _, scope, _ in given("httpName") if "'hostStorage'" in scope], "it could replace the package"
    assert {role for role, _, _ in given("awsHttpName")} == {"ask", "blobReader", "queueReader", "tableReader"}
    (ask,) = [r["properties"] for r in RESOURCES if r["type"] == "Microsoft.Authorization/roleDefinitions"]
    assert ask["permissions"] == [
        {"actions": ["Microsoft.MachineLearningServices/workspaces/onlineEndpoints/score/action"], "notActions": []}
    ]


def test_a_flood_is_bounded_in_the_app_that_answers():
    scale = SITES[HTTP]["properties"]["functionAppConfig"]["scaleAndConcurrency"]
    assert scale["maximumInstanceCount"] == "[parameters('httpInstances')]"
    assert scale["triggers"]["http"]["perInstanceConcurrency"] == "[parameters('httpConcurrency')]"
    host = json.loads((ROOT / "host.json").read_text())["extensions"]["http"]
    assert host["maxConcurrentRequests"] <= host["maxOutstandingRequests"]


# --- containers

PATHS = re.compile(r"StringLike '+([^']+)'+")


def conditioned(identity):
    """(paths that may be read, paths that may be changed) of an identity's blobs."""
    ((_, _, condition),) = [found for found in given(identity) if found[0] == "blobContributor"]
    reads, _, writes = condition.partition("blobs/write")
    return set(PATHS.findall(reads)), set(PATHS.findall(writes))


def test_what_trains_cannot_release_and_what_serves_cannot_change_a_model():
    assert conditioned("trainingName") == ({"jobs/*", "models/*"}, {"jobs/*"})
    assert conditioned("servingName") == ({"models/*", "release/*"}, {"feedback/*", "release/{0}/instances/*"})


def test_the_conditions_close_their_brackets():
    conditions = [r["properties"]["condition"] for r in RESOURCES if "condition" in r.get("properties", {})]
    assert len(conditions) == 4
    for condition in conditions:
        assert condition.count("(") == condition.count(")")
        assert condition.count("{") == condition.count("}")


def test_what_runs_the_image_may_pull_it():
    pullers = {r["properties"]["principalId"] for r in RESOURCES if "acrPull" in str(r.get("properties"))}
    assert len(pullers) == 3
    assert [p for p in pullers if "workspaces" in p]
    (workspace,) = [r for r in RESOURCES if r["type"] == "Microsoft.MachineLearningServices/workspaces"]
    assert "Microsoft.ContainerRegistry/registries" in workspace["properties"]["containerRegistry"]


# --- with AWS


def test_each_role_in_aws_is_trusted_by_the_identity_that_has_its_rights():
    trusted = {
        (name, r["properties"]["subject"])
        for r in RESOURCES
        if r["type"].endswith("/federatedIdentityCredentials")
        for name in re.findall(r"variables\('(\w+)'\)", r["name"])
    }
    roles = "[format('{0}-%s', variables('awsRoles'))]"
    assert trusted == {
        *(("awsName", roles % name) for name in ("schedule", "retrain", "training-events")),
        ("awsHttpName", roles % "http"),
    }
    assert TEMPLATE["variables"]["awsRoles"].endswith("role/{1}', parameters('awsAccount'), variables('name'))]")


def test_without_an_account_in_aws_nothing_of_it_is_made():
    for r in RESOURCES:
        if (
            "'awsName'" in r["name"]
            or "'awsHttpName'" in r["name"]
            or r["type"].endswith("/federatedIdentityCredentials")
        ):
            assert re.search("withAws|awsTrusted", r["condition"]), r["name"]


# --- alarms and what is left behind


def test_every_alert_reaches_the_action_group():
    alerts = [r for r in RESOURCES if r["type"] == "Microsoft.Insights/scheduledQueryRules"]
    told = {alert["name"].split("-", 1)[1].split("'")[0] for alert in alerts}
    assert told == {
        *("cloud-unhealthy", "dead-letters", "errors-logged", "http-error-rate"),
        *("retrain-errors", "retrain-stuck", "tick-failing", "tick-missing"),
    }, "the same as on AWS"
    assert all("actionGroups" in alert["properties"]["actions"]["actionGroups"][0] for alert in alerts)


def test_alerts_look_for_words_inside_a_line_and_every_line_is_kept():
    """A line is a JSON object, so no line starts with its message; a sampled one would be missed."""
    queries = [c["query"] for r in RESOURCES for c in r.get("properties", {}).get("criteria", {}).get("allOf", [])]
    assert len(queries) == 8
    assert not [query for query in queries if "message startswith" in query or "message ==" in query]
    sampling = json.loads((ROOT / "host.json").read_text())["logging"]["applicationInsights"]["samplingSettings"]
    assert "Trace" in sampling["excludedTypes"].split(";")


def test_the_words_that_alarms_wait_for_are_logged():
    source = "".join(path.read_text() for path in (ROOT / "functions").rglob("*.py"))
    alarms = (ROOT / "infra/aws/alarms.yml").read_text() + json.dumps(RESOURCES)
    for words in ("a cloud is not healthy", "dead-lettered a message"):
        assert f'"{words}"' in source
        assert words in alarms


def test_what_a_loop_leaves_behind_expires():
    (policy,) = [r for r in RESOURCES if r["type"].endswith("/managementPolicies")]
    rules = {rule["name"]: rule["definition"] for rule in policy["properties"]["policy"]["rules"]}
    assert set(rules) == {"finished-jobs", "old-labels", "status-of-instances", "old-versions"}
    assert "release/{1}/instances/" in rules["status-of-instances"]["filters"]["prefixMatch"][0]
    days = rules["old-labels"]["actions"]["baseBlob"]["delete"]["daysAfterModificationGreaterThan"]
    assert days == "[parameters('feedbackDays')]"


def test_metrics_have_a_workspace_unless_the_owner_brings_one():
    assert TEMPLATE["variables"]["ownMetrics"] == "[empty(parameters('prometheusUrl'))]"
    made = [r for r in RESOURCES if r.get("condition") == "[variables('ownMetrics')]"]
    assert {"Microsoft.Monitor/accounts", "Microsoft.Insights/dataCollectionRules"} <= {r["type"] for r in made}
    assert (
        "metricsPublisher",
        "[resourceId('Microsoft.Insights/dataCollectionRules', variables('name'))]",
        "",
    ) in given("servingName")


def test_the_outputs_say_what_a_first_release_needs():
    assert set(TEMPLATE["outputs"]) >= {
        *("functionApp", "httpApp", "storageAccount", "queue", "workspace", "endpoint", "registry"),
        *(
            "opportuneAzuremlServeIdentity",
            "servingClientId",
            "opportunePrometheusUrlAzure",
            "opportuneMetricsWriteUrlAzure",
        ),
    }


def test_a_second_service_in_the_same_group_has_names_of_its_own():
    variables = TEMPLATE["variables"]
    assert "parameters('service'), parameters('stage')" in variables["name"]
    assert "parameters('service'), parameters('stage')" in variables["unique"]
    own = {name for name, text in variables.items() if isinstance(text, str) and re.search(r"'(name|unique)'", text)}
    own |= {"name", "unique"}
    for r in RESOURCES:
        first = segments(r["name"])[0]
        assert r["type"].endswith(("/roleAssignments", "/roleDefinitions")) or re.search(
            rf"variables\('({'|'.join(own | {'site', 'httpSite', 'workspace'})})'\)", first
        ), r["name"]


#: what Azure Resource Manager refuses a resource without, as its published schemas say
REQUIRED = {
    "Microsoft.Authorization/roleDefinitions": ["properties.roleName", "properties.assignableScopes"],
    "Microsoft.ContainerRegistry/registries": ["location", "sku.name"],
    "Microsoft.Insights/dataCollectionEndpoints": ["location"],
    "Microsoft.Insights/dataCollectionRules": ["location", "properties.dataFlows", "properties.destinations"],
    "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials": [
        *("properties.issuer", "properties.subject", "properties.audiences"),
    ],
    "Microsoft.Monitor/accounts": ["location"],
    "Microsoft.Storage/storageAccounts/managementPolicies": ["properties.policy.rules"],
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
