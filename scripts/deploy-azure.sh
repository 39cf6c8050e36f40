#!/usr/bin/env bash
# The commands of docs/deploy-azure.md, each printed before it runs: make deploy-azure
#
# GROUP, LOCATION, STAGE, and PARAMS: the parameters of infra/azure/main.json as name=value, separated by spaces.
# APP: the name of a function app that exists; then its functions are published and nothing else is touched.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'deploy-azure: %s\n' "$*" >&2; exit 1; }
run() { printf '+'; printf ' %q' "$@"; printf '\n'; "$@"; }
publish() { run make package; cd build/azure; run func azure functionapp publish "$1" --python --no-build; cd ../..; }

need_func() {
    command -v func >/dev/null || fail "func is missing; install Azure Functions Core Tools 4 (npm install -g azure-functions-core-tools@4)"
}

if [[ -n ${APP:-} ]]; then
    need_func
    publish "$APP"
    exit
fi

group=${GROUP:-opportune}
read -r -a given <<<"${PARAMS:-}"
[[ ${#given[@]} -gt 0 ]] || fail 'PARAMS is empty; for instance PARAMS="service=qa prometheusUrl=https://prometheus.example.com", or name the function app to publish to: APP=…'
for one in "${given[@]}"; do
    [[ $one == [A-Za-z]*=* ]] || fail "PARAMS: '$one' is not name=value"
done
command -v az >/dev/null || fail "az is missing; install the Azure command line (https://aka.ms/azure-cli), then az login"
need_func

# The same parameters both times: one that is left out goes back to its default.
deploy=(az deployment group create --resource-group "$group" --template-file infra/azure/main.json
    --parameters "stage=${STAGE:-dev}" "${given[@]}")
run az group create --name "$group" --location "${LOCATION:-westeurope}"
run "${deploy[@]}"
app=$(az deployment group show -g "$group" -n main --query properties.outputs.functionApp.value -o tsv)
[[ -n $app ]] || fail "the deployment named no function app; see az deployment group show -g $group -n main"
publish "$app"
# the events of Azure ML need the published function
run "${deploy[@]}" subscribeEvents=true
