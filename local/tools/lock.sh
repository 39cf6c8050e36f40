#!/usr/bin/env bash
# Rewrite requirements/all.txt from pyproject.toml, and package-lock.json from package.json: lock.sh VENV
#
# Builds are left out of the versions (torch==2.13.0, not +cpu), and no index or download address is written down,
# so that the same lock works with any mirror.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=${1:?usage: lock.sh VENV}
out=requirements/all.txt

"$venv/bin/uv" --version >/dev/null 2>&1 || "$venv/bin/python" -m pip install --quiet uv
new=$(mktemp)
trap 'rm -f "$new"' EXIT
links=()
[[ -n ${PIP_FIND_LINKS:-} ]] && links=(--find-links "$PIP_FIND_LINKS")
"$venv/bin/uv" pip compile pyproject.toml --all-extras --python-version 3.11 --quiet --no-header \
    --no-emit-index-url --no-emit-find-links "${links[@]}" --output-file "$new"
{
    echo "# Locked by \`make lock\` for Python 3.11; edit pyproject.toml, not this file."
    sed -E 's/^([a-z0-9._-]+==[^+ ]+)\+[a-z0-9.]+/\1/' "$new"
} >"$out"

(cd local/tools && npm install --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund >/dev/null)
if grep -nE '"resolved"|https?://[^"]*\.tgz' local/tools/package-lock.json; then
    echo "opportune: package-lock.json names a registry host; see the lines above" >&2
    exit 1
fi
echo "opportune: locked $(grep -c '^[a-z0-9]' "$out") Python packages and Azurite" >&2
