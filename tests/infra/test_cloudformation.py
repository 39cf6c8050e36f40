"""serverless.yml as osls turns it into CloudFormation: valid, least privilege, and it deploys."""

import fnmatch
import json
import re

import pytest

from local.runtimes import ROOT

pytestmark = [
    pytest.mark.xdist_group("packages"),
    pytest.mark.slow,
    # resources of the stack that moto does not know; the linter checks them
    pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning"),
]
#: actions for which AWS knows no resource; its service authorisation reference says so for each
WITHOUT_RESOURCE = {
    "ec2:AssignPrivateIpAddresses",  # Lambda's network interfaces do not exist yet when it asks
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
    "cloudwatch:PutMetricData",  # the namespace is a condition
    "ecr:GetAuthorizationToken",
    "sts:GetWebIdentityToken",
    "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}
#: every optional part switched on
EVERYTHING = (
    "mode=act",
    "vpc=private",
    "subnets=subnet-11111111,subnet-22222222",
    "securityGroups=sg-11111111",
    "vpcEndpoints=create",
    "vpcId=vpc-11111111",
    "routeTables=rtb-11111111,rtb-22222222",
    "secretPath=/opportune/dev",
    "prometheusWorkspace=ws-11111111-2222-3333-4444-555555555555",
    "azureTenant=11111111-2222-3333-4444-555555555555",
    "azureClient=11111111-2222-3333-4444-666666666666",
    "azureHttpClient=11111111-2222-3333-4444-888888888888",
    "azurePrincipal=11111111-2222-3333-4444-777777777777",
    "azureHttpPrincipal=11111111-2222-3333-4444-999999999999",
    "azureStorageAccount=opportune",
    "alarmEmail=ops@example.com",
    "httpAuth=none",
    "reserve=false",
    "architecture=arm64",
)
VARIANTS = [(), EVERYTHING]
#: settings of metrics per cloud, which the deployment already gives
AWAITED = {f"OPPORTUNE_PROMETHEUS_{part}_{cloud}" for part in ("URL", "AUTH") for cloud in ("AWS", "AZURE")}


def statements(template):
    """(where, statement) of every identity policy."""
    for name, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
        if resource["Type"] in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            documents.append(properties["PolicyDocument"])
        for document in documents:
            for statement in document["Statement"]:
                yield name, statement


def listed(value):
    return value if isinstance(value, list) else [value]


def wildcards(template):
    """What is broader than it may be."""
    for name, statement in statements(template):
        actions = listed(statement["Action"])
        yield from (f"{name}: action {action}" for action in actions if "*" in action)
        if statement["Effect"] == "Allow" and "*" in listed(statement["Resource"]):
            yield from (f"{name}: {action} on *" for action in actions if action not in WITHOUT_RESOURCE)
        for resource in listed(statement["Resource"]):
            text = json.dumps(resource)
            # A wildcard may only stand for what is below a name: objects, log streams. "qa-*" would be "qa-2" as well.
            if "*" in text and text != '"*"' and not re.fullmatch(r'[^*]*[\w}?][/:]\*"\}?', text):
                yield f"{name}: resource {text}"


@pytest.mark.parametrize("parameters", VARIANTS, ids=["default", "everything"])
def test_no_role_may_do_more_than_it_needs(template, parameters):
    made = template(*parameters)
    assert not list(wildcards(made))
    assert not [name for name, r in made["Resources"].items() if r.get("Properties", {}).get("ManagedPolicyArns")]


def test_the_wildcard_check_can_fail():
    def template_with(**statement):
        policy = {"PolicyDocument": {"Statement": [{"Effect": "Allow", **statement}]}}
        return {"Resources": {"Role": {"Type": "AWS::IAM::Role", "Properties": {"Policies": [policy]}}}}

    assert list(wildcards(template_with(Action="s3:*", Resource="arn:aws:s3:::mine")))
    assert list(wildcards(template_with(Action="s3:GetObject", Resource="*")))
    assert list(wildcards(template_with(Action="s3:GetObject", Resource="arn:aws:s3:::*")))
    assert list(wildcards(template_with(Action="sagemaker:DescribeTrainingJob", Resource="arn:…:training-job/qa-*")))
    assert not list(wildcards(template_with(Action="s3:GetObject", Resource="arn:aws:s3:::mine/models/*")))


def test_every_function_has_a_role_of_its_own(template):
    functions = [r for r in template()["Resources"].values() if r["Type"] == "AWS::Lambda::Function"]
    roles = [json.dumps(f["Properties"]["Role"]) for f in functions]
    assert len(functions) == len(set(roles)) == 4


READS = re.compile(r"dynamodb:(BatchGetItem|GetItem|Query)|s3:(GetObject|ListBucket)|sqs:GetQueue(Attributes|Url)")


@pytest.mark.parametrize("role", ["HttpRole", "AzureHttpRole"])
def test_what_answers_anybody_may_ask_the_endpoint_and_change_nothing(template, role):
    made = template(*EVERYTHING)
    actions = {a for name, s in statements(made) if name == role for a in listed(s["Action"])}
    others = {"sagemaker:InvokeEndpoint", "logs:CreateLogStream", "logs:PutLogEvents"}
    assert {action for action in actions if not READS.fullmatch(action)} <= others
    assert granted(made, role, "s3:GetObject") == {"release/qa.json"}


def test_a_failed_message_comes_back_alone_and_ends_in_the_dead_letter_queue(template):
    made = template()["Resources"]
    (mapping,) = [r["Properties"] for r in made.values() if r["Type"] == "AWS::Lambda::EventSourceMapping"]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    queue, timeout = made["RetrainQueue"]["Properties"], made["RetrainLambdaFunction"]["Properties"]["Timeout"]
    assert queue["VisibilityTimeout"] >= 6 * timeout
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": ["RetrainDeadLetterQueue", "Arn"]}


def test_what_holds_data_is_private_encrypted_and_kept(template):
    made = template()["Resources"]
    bucket, table = made["Bucket"], made["Table"]
    assert bucket["DeletionPolicy"] == table["DeletionPolicy"] == "Retain"
    assert all(bucket["Properties"]["PublicAccessBlockConfiguration"].values())
    assert bucket["Properties"]["VersioningConfiguration"]["Status"] == "Enabled"
    assert bucket["Properties"]["BucketEncryption"]
    assert table["Properties"]["BillingMode"] == "PAY_PER_REQUEST"
    assert table["Properties"]["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
    assert table["Properties"]["TimeToLiveSpecification"] == {"AttributeName": "expires_s", "Enabled": True}


def test_every_alarm_reaches_a_person(template):
    alarms = [r["Properties"] for r in template()["Resources"].values() if r["Type"] == "AWS::CloudWatch::Alarm"]
    told = {alarm["AlarmName"].rpartition("-dev-")[2] for alarm in alarms}
    assert told == {
        "cloud-unhealthy",
        "dead-letters",
        "errors-logged",
        "http-error-rate",
        "retrain-errors",
        "retrain-stuck",
        "tick-failing",
        "tick-missing",
    }
    assert all(alarm["AlarmActions"] == [{"Ref": "AlarmTopic"}] for alarm in alarms)


def test_cloudwatch_may_use_the_key_of_the_topic_that_its_alarms_go_to(template):
    """With SNS's own key every alarm is dropped without a word: nobody can allow CloudWatch to use that one."""
    made = template()["Resources"]
    assert made["AlarmTopic"]["Properties"]["KmsMasterKeyId"] == {"Fn::GetAtt": ["AlarmKey", "Arn"]}
    for document, needed in (
        (made["AlarmKey"]["Properties"]["KeyPolicy"], {"kms:Decrypt", "kms:GenerateDataKey*"}),
        (made["AlarmTopicPolicy"]["Properties"]["PolicyDocument"], {"sns:Publish"}),
    ):
        (told,) = [s for s in document["Statement"] if s["Principal"] == {"Service": "cloudwatch.amazonaws.com"}]
        assert told["Effect"] == "Allow"
        assert set(listed(told["Action"])) == needed


def test_logs_do_not_stay_for_ever(template):
    groups = [r["Properties"] for r in template()["Resources"].values() if r["Type"] == "AWS::Logs::LogGroup"]
    assert len(groups) == 5, "of the functions and of the HTTP API"
    assert all(group["RetentionInDays"] == 365 for group in groups)


def test_secrets_never_stand_in_the_environment(template):
    functions = [
        r["Properties"] for r in template(*EVERYTHING)["Resources"].values() if r["Type"].endswith("::Function")
    ]
    for function in functions:
        variables = function["Environment"]["Variables"]
        assert "OPPORTUNE_AZURE_STORAGE_CONNECTION" not in variables
        for name in ("OPPORTUNE_PROMETHEUS_TOKEN", "OPPORTUNE_OPERATOR_TOKEN"):
            assert variables[name] == "" or variables[name].startswith("ssm:")


def test_functions_get_only_settings_that_exist(template):
    from shared.settings import Settings

    known = {f"OPPORTUNE_{name.upper()}" for name in Settings.__struct_fields__}
    (first, *_) = [r for r in template()["Resources"].values() if r["Type"] == "AWS::Lambda::Function"]
    given = {name for name in first["Properties"]["Environment"]["Variables"] if name.startswith("OPPORTUNE_")}
    assert not given - known - AWAITED


def test_it_deploys(deployed):
    (stack,) = deployed.client("cloudformation").describe_stacks(StackName="opportune-qa-dev")["Stacks"]
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    assert set(deployed.environments) == {"schedule", "retrain", "training-events", "http"}
    (rule,) = deployed.client("events").list_rules(NamePrefix="opportune-qa-dev-ScheduleEventsRule")["Rules"]
    assert rule["ScheduleExpression"] == "rate(1 minute)"


# --- one stack per service and stage


def names(value):
    """Physical names, exports among them: what CloudFormation gives to one resource of an account at a time."""
    if isinstance(value, dict):
        for key, part in value.items():
            if re.fullmatch(r"(Alarm|Bucket|Function|Queue|Repository|Role|Table|Topic)Name|Alias", key):
                yield part["Fn::Sub"] if isinstance(part, dict) and "Fn::Sub" in part else part
            elif key == "Export":
                yield part["Name"]
            else:
                yield from names(part)
    elif isinstance(value, list):
        for part in value:
            yield from names(part)


def own_names(template):
    """The physical names of one service's stack."""
    made = {
        r_id: {k: v for k, v in r["Properties"].items() if k != "Tags"} for r_id, r in template["Resources"].items()
    }
    found = {name for name in names([made, template["Outputs"]]) if isinstance(name, str)}
    return found - {"kind", "key", "expires_s"}


def test_a_second_service_in_the_same_stage_has_nothing_in_common_with_the_first(template, deployment):
    first, second = template(), template("service=faq")
    assert len(own_names(first)) > 20
    assert own_names(first) & own_names(second) == set()
    stacks = []
    for parameters in ((), ("service=faq",)):
        state = json.loads((deployment(*parameters) / "serverless-state.json").read_text())
        stacks.append(state["service"]["provider"]["stackName"])
    assert stacks == ["opportune-qa-dev", "opportune-faq-dev"]


def test_every_name_carries_service_and_stage(template):
    assert [name for name in own_names(template()) if "opportune-qa-dev" not in name] == []


@pytest.mark.parametrize(
    ("job", "covered"), [("qa-20261201t010000", True), ("qa-2-20261201t010000", False), ("qa-20261201t0100001", False)]
)
def test_the_roles_cover_jobs_of_this_service_alone(template, job, covered):
    patterns = {
        resource["Fn::Sub"].rpartition("training-job/")[2]
        for _, statement in statements(template(*EVERYTHING))
        for resource in listed(statement["Resource"])
        if isinstance(resource, dict) and "training-job/" in str(resource.get("Fn::Sub"))
    }
    (pattern,) = patterns
    assert fnmatch.fnmatchcase(job, pattern) == covered


# --- containers


def granted(template, role, action):
    """The resources on which a role allows an action, as prefixes below the bucket."""
    return {
        resource["Fn::Sub"].removeprefix("${Bucket.Arn}/")
        for name, statement in statements(template)
        if name == role and action in listed(statement["Action"])
        for resource in listed(statement["Resource"])
        if "Fn::Sub" in resource
    }


def test_what_trains_cannot_release_and_what_serves_cannot_change_a_model(template):
    made = template()
    assert granted(made, "TrainingRole", "s3:GetObject") == {"jobs/*", "models/*"}
    assert granted(made, "TrainingRole", "s3:PutObject") == {"jobs/*"}
    assert granted(made, "ServingRole", "s3:GetObject") == {"models/*", "release/*"}
    assert granted(made, "ServingRole", "s3:PutObject") == {"feedback/*", "release/qa/instances/*"}


def test_only_what_starts_jobs_may_hand_on_a_role_and_only_that_of_the_jobs(template):
    handed = [(name, s["Resource"]) for name, s in statements(template(*EVERYTHING)) if "iam:PassRole" in s["Action"]]
    assert handed == [("RetrainRole", {"Fn::GetAtt": ["TrainingRole", "Arn"]})]


def test_no_function_may_change_an_endpoint(template):
    actions = {a for _, s in statements(template(*EVERYTHING)) for a in listed(s["Action"])}
    assert not [action for action in actions if re.match("sagemaker:(Create|Update|Delete)(Model|Endpoint)", action)]


def test_each_azure_app_has_a_role_that_it_alone_can_take_on(template):
    made = template(*EVERYTHING)
    for role, subject in (("AzurePeerRole", "777777777777"), ("AzureHttpRole", "999999999999")):
        (trust,) = made["Resources"][role]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        told = trust["Condition"]["StringEquals"]
        assert sorted(value.rpartition("-")[2] for value in told.values()) == [subject, "dev"]
    assert "AWS::IAM::OIDCProvider" not in {r["Type"] for r in made["Resources"].values()}, "one for all services"


# --- what the loop needs, and its limits


def test_metrics_have_a_workspace_unless_the_owner_brings_one(template):
    def stated(*parameters):
        made = template(*parameters)
        return {
            name: made["Outputs"][name]["Value"]
            for name in ("OpportunePrometheusUrlAws", "OpportuneMetricsWriteUrlAws")
        }, made

    outputs, made = stated()
    assert made["Conditions"]["OwnMetrics"] == {"Fn::And": [{"Fn::Equals": ["", ""]}, {"Fn::Equals": ["", ""]}]}
    assert made["Resources"]["MetricsWorkspace"]["Condition"] == "OwnMetrics"
    assert outputs["OpportuneMetricsWriteUrlAws"]["Fn::If"][:2] == [
        "OwnMetrics",
        {"Fn::Sub": "${MetricsWorkspace.PrometheusEndpoint}api/v1/remote_write"},
    ]
    outputs, made = stated("prometheusUrl=https://p.example", "metricsWriteUrl=https://p.example/api/v1/write")
    assert {"Fn::Equals": ["https://p.example", ""]} in made["Conditions"]["OwnMetrics"]["Fn::And"]
    assert outputs["OpportuneMetricsWriteUrlAws"]["Fn::If"][2]["Fn::If"][2] == "https://p.example/api/v1/write"


def test_the_outputs_say_what_a_first_release_needs(template):
    assert set(template()["Outputs"]) >= {
        *("BucketName", "EndpointName", "ImageRepository", "TrainingRoleArn", "ServingRoleArn"),
        *(
            "OpportunePrometheusUrlAws",
            "OpportuneMetricsWriteUrlAws",
            "OpportuneMetricsWriteAuthAws",
            "HttpApiUrl",
            "AlarmTopicArn",
        ),
    }


def test_what_a_loop_leaves_behind_expires(template):
    rules = template("feedbackDays=7")["Resources"]["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    days = {rule.get("Prefix"): int(rule.get("ExpirationInDays", 0)) for rule in rules}
    assert days == {None: 0, "jobs/": 90, "feedback/": 7, "release/qa/instances/": 1}
    (general,) = [rule for rule in rules if "Prefix" not in rule]
    assert general["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}


def test_a_flood_of_requests_leaves_the_tick_its_room(template):
    made = template("httpRate=7", "httpBurst=9")["Resources"]
    reserved = {
        r["Properties"]["FunctionName"].removeprefix("opportune-qa-dev-"): r["Properties"][
            "ReservedConcurrentExecutions"
        ]
        for r in made.values()
        if r["Type"] == "AWS::Lambda::Function"
    }
    assert reserved == {"schedule": 2, "retrain": 2, "training-events": 2, "http": 40}
    limits = made["HttpApiStage"]["Properties"]["DefaultRouteSettings"]
    assert (int(limits["ThrottlingRateLimit"]), int(limits["ThrottlingBurstLimit"])) == (7, 9)
    (mapping,) = [r["Properties"] for r in made.values() if r["Type"] == "AWS::Lambda::EventSourceMapping"]
    assert mapping["ScalingConfig"]["MaximumConcurrency"] <= reserved["retrain"]


def test_a_new_account_without_concurrency_to_reserve_can_deploy(template):
    functions = [r for r in template("reserve=false")["Resources"].values() if r["Type"] == "AWS::Lambda::Function"]
    assert not [f for f in functions if "ReservedConcurrentExecutions" in f["Properties"]]


def test_without_a_parameter_file_nothing_is_deployed(osls):
    """Falling back to defaults would set back mode, budget and the address that alarms go to."""
    with pytest.raises(AssertionError, match="Value not found"):
        osls("package", env={"OPPORTUNE_PARAMETERS": "infra/aws/parameters.nobody-wrote-this.yml"})


def test_a_second_deployment_keeps_what_the_file_says(osls, deployment, tmp_path):
    """docs/deploy-aws.md: one line is changed, and budget, mode, tokens and the address that alarms go to stay."""
    deployment()  # an artifact lies in build/
    file = tmp_path / "parameters.dev.yml"
    text = (ROOT / "infra/aws/parameters.example.yml").read_text()
    text = text.replace('alarmEmail: ""', "alarmEmail: ops@example.com").replace('"50"', '"7"', 1)
    made = []
    for mode in ("watch", "act"):
        file.write_text(text.replace("mode: watch", f"mode: {mode}"))
        osls("package", "--stage", "dev", "--package", str(tmp_path / mode), env={"OPPORTUNE_PARAMETERS": str(file)})
        made.append((tmp_path / mode / "cloudformation-template-update-stack.json").read_text())
    first, second = (json.loads(re.sub(r"serverless/opportune/dev/[^/]+/", "", one)) for one in made)
    variables = second["Resources"]["ScheduleLambdaFunction"]["Properties"]["Environment"]["Variables"]
    assert variables["OPPORTUNE_BUDGET_USD_PER_DAY"] == "7"
    assert second["Resources"]["AlarmEmail"]["Properties"]["Endpoint"] == "ops@example.com"
    assert json.dumps(first).replace('"OPPORTUNE_MODE": "watch"', '"OPPORTUNE_MODE": "act"') == json.dumps(second)
