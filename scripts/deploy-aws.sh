#!/usr/bin/env bash
# The commands of docs/deploy-aws.md from the package on, each printed before it runs: make deploy-aws
#
# STAGE, REGION, and PARAMS: the parameters of serverless.yml as name=value, separated by spaces.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'deploy-aws: %s\n' "$*" >&2; exit 1; }
run() { printf '+'; printf ' %q' "$@"; printf '\n'; "$@"; }

osls=.tools/bin/osls
read -r -a given <<<"${PARAMS:-}"
[[ ${#given[@]} -gt 0 ]] || fail 'PARAMS is empty; for instance PARAMS="service=qa prometheusUrl=https://prometheus.example.com"'
parameters=()
for one in "${given[@]}"; do
    [[ $one == [A-Za-z]*=* ]] || fail "PARAMS: '$one' is not name=value"
    parameters+=(--param "$one")
done
command -v "$osls" >/dev/null || fail "$osls is missing; make install fetches it"

run make package
run "$osls" deploy --stage "${STAGE:-dev}" --region "${REGION:-eu-west-1}" "${parameters[@]}"
