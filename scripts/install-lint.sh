#!/usr/bin/env bash
# Fetch checkov, which looks for weaknesses in the templates, into a virtual environment of its own: install-lint.sh VENV
#
# It pins boto3 and others at versions that are not ours. Its packages are pinned by requirements/lint.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:?usage: install-lint.sh VENV}

[[ -x $venv/bin/python ]] || .venv/bin/python -m venv --clear "$venv"
printf 'opportune: installing checkov into %s\n' "$venv" >&2
PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip install -qq --no-deps -r requirements/lint.txt
