#!/usr/bin/env bash
# Let the deployments of one service on both clouds trust each other, with no secret stored anywhere: scripts/federate.sh
#
# STAGE (dev), GROUP (opportune), and AWS_FILE and AZURE_FILE where the parameter files are not those of the stage.
# Both are deployed already; it deploys each once more, with what it now knows of the other. It may be repeated.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'federate: %s\n' "$*" >&2; exit 1; }
run() { printf '+'; printf ' %q' "$@"; printf '\n'; "$@"; }

stage=${STAGE:-dev} group=${GROUP:-opportune}
aws_file=${AWS_FILE:-infra/aws/parameters.$stage.yml} azure_file=${AZURE_FILE:-infra/azure/parameters.$stage.json}
for file in "$aws_file" "$azure_file"; do
    [[ -f $file ]] || fail "$file does not exist; deploy both clouds first (docs/deploy-aws.md, docs/deploy-azure.md)"
done
for program in aws az; do
    command -v "$program" >/dev/null || fail "$program is missing; install it and sign in"
done
said() { sed -n "s/^$1: *[\"']\{0,1\}\([^\"' #]*\).*/\1/p" "$aws_file"; }
service=$(said service) region=$(said region)
name=opportune-$service-$stage

# AWS proves its roles to others: one switch for the account, which has an issuer of its own from then on.
account=$(aws sts get-caller-identity --query Account --output text)
issuer() { aws iam get-outbound-web-identity-federation-info --query IssuerIdentifier --output text; }
issuer=$(issuer 2>/dev/null) || { run aws iam enable-outbound-web-identity-federation; issuer=$(issuer); }
metrics=$(aws cloudformation describe-stacks --region "$region" --stack-name "$name" --output text \
    --query "Stacks[0].Outputs[?OutputKey=='OpportunePrometheusUrlAws'].OutputValue")
[[ $metrics == *aps-workspaces* ]] || metrics=

# The template makes two identities in Azure that trust the functions' roles, by federated credentials.
run ./opportune deploy azure --stage "$stage" --parameters "$azure_file" --group "$group" --no-image \
    --set "awsAccount=$account" --set "awsRegion=$region" --set "awsIssuer=$issuer" --set "prometheusUrlAws=$metrics"
output() { az deployment group show --resource-group "$group" --name "$name" --query "properties.outputs.$1.value" --output tsv; }
tenant=$(output tenant)
metrics=$(output opportunePrometheusUrlAzure)
[[ $metrics == *monitor.azure.com* ]] || metrics=

# The tokens that Azure's identities bring to AWS are for an application; nobody signs in to it.
audience=api://$tenant/$name
application=$(az ad app list --identifier-uri "$audience" --query '[0].appId' --output tsv)
if [[ -z $application ]]; then
    run az ad app create --display-name "$name" --identifier-uris "$audience" --sign-in-audience AzureADMyOrg --output none
    application=$(az ad app list --identifier-uri "$audience" --query '[0].appId' --output tsv)
fi
az ad sp show --id "$application" --output none 2>/dev/null || run az ad sp create --id "$application" --output none

# AWS knows an issuer once, whatever the number of services whose tokens it issues.
provider=arn:aws:iam::$account:oidc-provider/sts.windows.net/$tenant/
if aws iam get-open-id-connect-provider --open-id-connect-provider-arn "$provider" >/dev/null 2>&1; then
    run aws iam add-client-id-to-open-id-connect-provider --open-id-connect-provider-arn "$provider" --client-id "$audience"
else
    run aws iam create-open-id-connect-provider --url "https://sts.windows.net/$tenant/" --client-id-list "$audience"
fi

run ./opportune deploy aws --stage "$stage" --parameters "$aws_file" --no-image \
    --set "azureTenant=$tenant" --set "azureSubscription=$(az account show --query id --output tsv)" \
    --set "azureResourceGroup=$group" --set "azureWorkspace=$(output workspace)" --set "azureEndpoint=$(output endpoint)" \
    --set "azureStorageAccount=$(output storageAccount)" --set "prometheusUrlAzure=$metrics" \
    --set "azureClient=$(output awsClientId)" --set "azureHttpClient=$(output awsHttpClientId)" \
    --set "azurePrincipal=$(output identityPrincipalId)" --set "azureHttpPrincipal=$(output httpIdentityPrincipalId)"
