"""serverless.yml as osls turns it into CloudFormation: valid, least privilege, and it deploys."""

import json
import re
import subprocess

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
    "secretPath=/opportune/dev",
    "prometheusWorkspace=ws-11111111-2222-3333-4444-555555555555",
    "azureTenant=11111111-2222-3333-4444-555555555555",
    "azureClient=11111111-2222-3333-4444-666666666666",
    "azurePrincipal=11111111-2222-3333-4444-777777777777",
    "azureStorageAccount=opportune",
    "alarmEmail=ops@example.com",
    "httpAuth=none",
    "architecture=arm64",
)
VARIANTS = [(), EVERYTHING]


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
            # A wildcard may only stand for what is below a name: objects, log streams, jobs of the service.
            if "*" in text and text != '"*"' and not re.fullmatch(r'[^*]*[\w}][-/:]\*"\}?', text):
                yield f"{name}: resource {text}"


@pytest.mark.parametrize("parameters", VARIANTS, ids=["default", "everything"])
def test_the_template_has_no_lint_errors(deployment, parameters):
    path = deployment(*parameters) / "cloudformation-template-update-stack.json"
    done = subprocess.run(
        [str(ROOT / ".venv/bin/cfn-lint"), "--non-zero-exit-code", "error", str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


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
    assert not list(wildcards(template_with(Action="s3:GetObject", Resource="arn:aws:s3:::mine/models/*")))


def test_every_function_has_a_role_of_its_own(template):
    functions = [r for r in template()["Resources"].values() if r["Type"] == "AWS::Lambda::Function"]
    roles = [json.dumps(f["Properties"]["Role"]) for f in functions]
    assert len(functions) == len(set(roles)) == 4


def test_the_http_function_only_reads(template):
    made = template(*EVERYTHING)
    actions = {a for name, s in statements(made) if name == "HttpRole" for a in listed(s["Action"])}
    assert actions == {
        *("dynamodb:GetItem", "dynamodb:Query", "sagemaker:InvokeEndpoint"),
        *("logs:CreateLogStream", "logs:PutLogEvents"),
    }


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
    assert len(groups) == 4
    assert all(group["RetentionInDays"] == 30 for group in groups)


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
    assert not given - known


def test_it_deploys(deployed):
    (stack,) = deployed.client("cloudformation").describe_stacks(StackName="opportune-dev")["Stacks"]
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    assert set(deployed.environments) == {"schedule", "retrain", "training-events", "http"}
    (rule,) = deployed.client("events").list_rules(NamePrefix="opportune-dev-ScheduleEventsRule")["Rules"]
    assert rule["ScheduleExpression"] == "rate(1 minute)"
