"""Every API that the functions can call has a statement in the roles of those that call it, and no other has one.

What can be called is read out of the adapters' source: a call that somebody adds fails here until a role allows it.
"""

import ast
import fnmatch
import functools
import json
import re

import botocore.session  # noqa: TID251 - the names of operations
import pytest
from botocore import xform_name  # noqa: TID251

from local.runtimes import ROOT

#: of `opportune release --first` and `doctor` alone, with the permissions of whoever types them
TYPED = ("endpoint_setup.py", "account_checks.py")
ADAPTERS = [path for path in (ROOT / "shared/adapters").rglob("*.py") if path.name not in TYPED]
SOURCES = sorted([*ADAPTERS, *(ROOT / "functions").rglob("*.py")])
FUNCTIONS = ("ScheduleRole", "RetrainRole", "TrainingEventsRole", "HttpRole")
RELEASE = ("ScheduleRole", "TrainingEventsRole", "AzurePeerRole")
WRITERS = (*RELEASE, "RetrainRole")
ASK = ("HttpRole", "AzureHttpRole")
#: action -> who calls it
NEEDED = {
    "aps:QueryMetrics": ("ScheduleRole", "AzurePeerRole"),
    "dynamodb:BatchGetItem": ("ScheduleRole", "AzurePeerRole", *ASK),
    "dynamodb:GetItem": (*WRITERS, *ASK),
    "dynamodb:PutItem": WRITERS,
    "dynamodb:Query": (*WRITERS, *ASK),
    "s3:GetObject": (*WRITERS, *ASK),
    "s3:ListBucket": (*WRITERS, *ASK),
    "s3:ListBucketMultipartUploads": RELEASE,
    "s3:ListMultipartUploadParts": RELEASE,
    "s3:PutObject": WRITERS,
    "sagemaker:CreateTrainingJob": ("RetrainRole",),
    "sagemaker:DescribeEndpoint": RELEASE,
    "sagemaker:DescribeTrainingJob": WRITERS,
    "sagemaker:InvokeEndpoint": ASK,
    "sagemaker:StopTrainingJob": WRITERS,
    "sqs:GetQueueAttributes": ASK,
    "sqs:GetQueueUrl": ("ScheduleRole", "RetrainRole", "AzurePeerRole", *ASK),
    "sqs:SendMessage": ("ScheduleRole", "RetrainRole", "AzurePeerRole"),
    "ssm:GetParameter": FUNCTIONS,
    "sts:GetWebIdentityToken": FUNCTIONS,
}
#: called by `opportune doctor`, `status`, `redrive` and `release --first`, with the permissions of whoever types them
BY_A_PERSON = {
    "cloudwatch:DescribeAlarms",
    "ecr:DescribeImages",
    "iam:GetRole",
    "sagemaker:CreateEndpoint",
    "sagemaker:CreateEndpointConfig",
    "sagemaker:CreateModel",
    "sagemaker:DescribeEndpointConfig",
    "sagemaker:DescribeModel",
    "sagemaker:UpdateEndpoint",
    "service-quotas:ListServiceQuotas",
    "sns:ListSubscriptionsByTopic",
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:ReceiveMessage",
}
#: of what is needed, what the code does not call yet
AWAITED = {"s3:ListBucketMultipartUploads", "s3:ListMultipartUploadParts"}
#: not called by our code: by Lambda for the function, or checked by a service because of what a request says
IMPLIED = {
    "ec2:*": FUNCTIONS,  # the network interfaces of a function in a VPC
    "iam:PassRole": ("RetrainRole",),  # the job gets its role
    "logs:*": FUNCTIONS,
    "s3:AbortMultipartUpload": RELEASE,  # of an upload that is begun again
    "sagemaker:AddTags": ("RetrainRole",),  # a request with tags
    "sqs:ChangeMessageVisibility": ("RetrainRole",),  # the poller of the queue
    "sqs:DeleteMessage": ("RetrainRole",),
    "sqs:GetQueueAttributes": ("RetrainRole",),
    "sqs:ReceiveMessage": ("RetrainRole",),
    "xray:*": FUNCTIONS,
}
#: where IAM's name is not the operation's
NAMED = {
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:CopyObject": "s3:PutObject",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListParts": "s3:ListMultipartUploadParts",
    "s3:UploadPart": "s3:PutObject",
    "s3:UploadPartCopy": "s3:PutObject",
}
#: requests that are sent without a client: what gives them away -> action
SENT = {
    r'"aps"': "aps:QueryMetrics",
    r"/invocations": "sagemaker:InvokeEndpoint",
    r"\bget_parameter\(": "ssm:GetParameter",
}


@functools.cache
def operations(service):
    """Method name -> operation, as botocore knows the service."""
    names = botocore.session.get_session().get_service_model(service).operation_names
    return {xform_name(name): name for name in names}


def called(sources):
    """IAM actions of every AWS request in the sources."""
    found = set()
    for path in sources:
        text = path.read_text()
        found |= {action for pattern, action in SENT.items() if re.search(pattern, text)}
        nodes = list(ast.walk(ast.parse(text)))
        words = {n.attr for n in nodes if isinstance(n, ast.Attribute)}
        words |= {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        for service in set(re.findall(r'\bclient\(\s*"([a-z0-9-]+)"', text)):
            prefix = service.removesuffix("-runtime")
            found |= {f"{prefix}:{operation}" for method, operation in operations(service).items() if method in words}
    return {NAMED.get(action, action) for action in found}


def allowed(template):
    """Role -> the actions it is allowed."""
    granted = {}
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::IAM::Role":
            documents, roles = [p["PolicyDocument"] for p in resource["Properties"].get("Policies", [])], [name]
        elif resource["Type"] == "AWS::IAM::Policy":
            documents = [resource["Properties"]["PolicyDocument"]]
            named = [role["Fn::If"][1] if "Fn::If" in role else role for role in resource["Properties"]["Roles"]]
            roles = [role["Ref"] for role in named]
        else:
            continue
        for statement in (s for document in documents for s in document["Statement"]):
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            for role in roles:
                granted.setdefault(role, set()).update(actions)
    return granted


def test_the_list_of_what_is_called_is_what_the_source_calls():
    found = called(SOURCES) - BY_A_PERSON
    assert found - set(NEEDED) == set(), "nobody is allowed it"
    assert set(NEEDED) - found - AWAITED == set(), "nobody calls it"


def test_a_new_call_would_be_noticed(tmp_path):
    source = tmp_path / "adapter.py"
    source.write_text(
        'session.client("s3").delete_object(Bucket="b", Key="k")\nsns = session.client("sns")\nsns.publish(Message="m")'
    )
    assert called([source]) == {"s3:DeleteObject", "sns:Publish"}


@pytest.mark.slow
@pytest.mark.xdist_group("packages")
@pytest.mark.parametrize("role", [*FUNCTIONS, "AzurePeerRole", "AzureHttpRole"])
def test_a_role_allows_what_its_function_calls_and_nothing_else(template, role):
    everything = (
        *("secretPath=/opportune/dev", "prometheusWorkspace=ws-11111111-2222-3333-4444-555555555555", "vpc=private"),
        *("subnets=subnet-11111111", "securityGroups=sg-11111111", "azureTenant=11111111-2222-3333-4444-555555555555"),
        *("azureClient=11111111-2222-3333-4444-666666666666", "azurePrincipal=11111111-2222-3333-4444-777777777777"),
        "azureHttpPrincipal=11111111-2222-3333-4444-999999999999",
    )
    granted = allowed(template(*everything))[role]
    needed = {action for action, roles in NEEDED.items() if role in roles}
    assert needed - granted == set(), "called but not allowed"
    implied = [pattern for pattern, roles in IMPLIED.items() if role in roles]
    spare = {a for a in granted - needed if not any(fnmatch.fnmatch(a, pattern) for pattern in implied)}
    assert spare == set(), "allowed but never called"


# --- Azure

#: built-in role, as variables('roles') names it -> (actions, exceptions) of the definitions that Azure publishes
BUILT_IN = {
    "blobReader": (["Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read"], []),
    "queueReader": (["Microsoft.Storage/storageAccounts/queueServices/queues/messages/read"], []),
    "tableReader": (["Microsoft.Storage/storageAccounts/tableServices/tables/entities/read"], []),
    "ask": (["Microsoft.MachineLearningServices/workspaces/onlineEndpoints/score/action"], []),  # the template's own
    "blobContributor": (["Microsoft.Storage/storageAccounts/blobServices/containers/*"], []),
    "queueContributor": (["Microsoft.Storage/storageAccounts/queueServices/queues/*"], []),
    "tableContributor": (["Microsoft.Storage/storageAccounts/tableServices/tables/*"], []),
    "mlDataScientist": (
        [f"Microsoft.MachineLearningServices/workspaces/*/{verb}" for verb in ("read", "action", "delete", "write")],
        [
            "Microsoft.MachineLearningServices/workspaces/delete",
            "Microsoft.MachineLearningServices/workspaces/write",
            "Microsoft.MachineLearningServices/workspaces/computes/*/write",
            "Microsoft.MachineLearningServices/workspaces/computes/*/delete",
            "Microsoft.MachineLearningServices/workspaces/computes/listKeys/action",
            "Microsoft.MachineLearningServices/workspaces/listKeys/action",
        ],
    ),
}
_ML = "Microsoft.MachineLearningServices/workspaces"
_STORAGE = "Microsoft.Storage/storageAccounts"
#: (part of Azure, request) in the adapters -> the action that Azure checks
AZURE_NEEDED = {
    ("blob", "GET"): f"{_STORAGE}/blobServices/containers/blobs/read",
    ("blob", "PUT"): f"{_STORAGE}/blobServices/containers/blobs/write",
    ("queue", "GET"): f"{_STORAGE}/queueServices/queues/messages/read",
    ("queue", "POST"): f"{_STORAGE}/queueServices/queues/messages/write",
    ("queue", "PUT"): f"{_STORAGE}/queueServices/queues/messages/write",
    ("queue", "DELETE"): f"{_STORAGE}/queueServices/queues/messages/delete",
    ("table", "GET"): f"{_STORAGE}/tableServices/tables/entities/read",
    ("table", "POST"): f"{_STORAGE}/tableServices/tables/entities/add/action",
    ("table", "PUT"): f"{_STORAGE}/tableServices/tables/entities/write",
    ("ml", "GET"): f"{_ML}/onlineEndpoints/deployments/read",
    ("ml", "PUT jobs"): f"{_ML}/jobs/write",
    ("ml", "POST jobs"): f"{_ML}/jobs/cancel/action",
    ("ml", "score"): f"{_ML}/onlineEndpoints/score/action",
}
#: sent by `opportune release --first`, with the permissions of whoever types it
AZURE_BY_A_PERSON = {("ml", "PUT onlineEndpoints"), ("ml", "PUT models")}
#: what the SDK's methods send; one that is not here fails the test
SDK_REQUESTS = {
    "blob": {
        "commit_block_list": "PUT",
        "download_blob": "GET",
        "get_blob_properties": "GET",
        "get_block_list": "GET",
        "list_blob_names": "GET",
        "list_blobs": "GET",
        "stage_block": "PUT",
        "start_copy_from_url": "PUT",
        "upload_blob": "PUT",
    },
    "queue": {
        "send_message": "POST",
        "update_message": "PUT",
        "get_queue_properties": "GET",
        "receive_messages": "GET",
        "delete_message": "DELETE",
    },
    "table": {
        "get_entity": "GET",
        "query_entities": "GET",
        "create_entity": "POST",
        "upsert_entity": "PUT",
        "update_entity": "PUT",
    },
}
#: identity, as the template's variable -> what each part of Azure asks of it
ROLES_OF = {
    "name": {
        "blob": "blobContributor",
        "queue": "queueContributor",
        "table": "tableContributor",
        "ml": "mlDataScientist",
    },
    "httpName": {"blob": "blobReader", "queue": "queueReader", "table": "tableReader", "ml": "ask"},
}
#: what the HTTP app asks of Azure
OF_HTTP = {("blob", "GET"), ("queue", "GET"), ("table", "GET"), ("ml", "score")}


def azure_called():
    """(part of Azure, request) of every request in the adapters."""
    found = set()
    adapters = ROOT / "shared/adapters/azure"
    for part, file, clients in (
        ("table", "documents.py", "_table"),
        ("blob", "objects.py", "_container"),
        ("queue", "queue.py", "_jobs|_poison"),
    ):
        text = (adapters / file).read_text()
        calls = re.findall(rf"(?:self\.(?:{clients})|get_blob_client\([^()]*\)|\btarget)\.(\w+)\(", text)
        calls = [call for call in calls if call != "get_blob_client"]
        found |= {(part, SDK_REQUESTS[part][call]) for call in calls}
    ml = "".join((adapters / name).read_text() for name in ("training.py", "endpoint.py"))
    named = {"self._endpoint": "onlineEndpoints", "resource": "onlineEndpoints", "model": "models"}
    for method, target in re.findall(r'\.call\(\s*"([A-Z]+)",\s*(f?"\{?[\w.]+|[\w.]+)', ml):
        name = target.removeprefix("f").lstrip('"{') if '"' in target else target
        kind = named.get(name, name)
        found.add(("ml", method if method == "GET" else f"{method} {kind}"))
    if "class AzureMLInference" in (ROOT / "shared/adapters/inference.py").read_text():
        found.add(("ml", "score"))
    return found


def test_the_list_of_what_is_asked_of_azure_is_what_the_source_asks():
    assert azure_called() - AZURE_BY_A_PERSON == set(AZURE_NEEDED)


@pytest.mark.parametrize(
    ("identity", "needed"), [("name", set(AZURE_NEEDED) - {("ml", "score")}), ("httpName", OF_HTTP)]
)
def test_every_azure_request_is_allowed_by_a_role_of_the_identity_that_sends_it(identity, needed):
    resources = json.loads((ROOT / "infra/azure/main.json").read_text())["resources"]
    assigned = {
        re.findall(r"variables\('roles'\)\.(\w+)", r["properties"]["roleDefinitionId"])[0]
        for r in resources
        if r["type"].endswith("/roleAssignments")
        and f"variables('{identity}')" in r["properties"]["principalId"]
        and not re.search("hostStorage|httpStorage", r["scope"])
    }
    for part, request in needed:
        role, action = ROLES_OF[identity][part], AZURE_NEEDED[part, request]
        assert role in assigned, f"{part} {request}: nobody gave the identity {role}"
        patterns, exceptions = BUILT_IN[role]
        assert any(fnmatch.fnmatch(action, p) for p in patterns), (request, action)
        assert not any(fnmatch.fnmatch(action, p) for p in exceptions), (request, action)
