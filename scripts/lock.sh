#!/usr/bin/env bash
# Rewrite requirements/*.txt from pyproject.toml and requirements/*.in, and package-lock.json: lock.sh VENV
#
# Builds are left out of the versions (torch==2.13.0, not +cpu), and no index or download address is written down,
# so that the same lock works with any mirror.
set -euo pipefail
cd "$(dirname "$0")/.."
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

# What the functions and their runtimes get: Python 3.13, at the versions that the tests on 3.11 saw. azure-functions
# alone differs: its releases for 3.13 do not install on 3.11.
constraints=$(mktemp)
trap 'rm -f "$new" "$constraints"' EXIT
grep -v '^azure-functions==' "$out" >"$constraints"
for part in functions-aws functions-azure runtimes; do
    "$venv/bin/uv" pip compile "requirements/$part.in" --constraint "$constraints" --python-version 3.13 \
        --python-platform x86_64-manylinux_2_28 --quiet --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links "${links[@]}" --output-file "$new"
    {
        echo "# Locked by \`make lock\` for Python 3.13; edit requirements/$part.in, not this file."
        cat "$new"
    } >"requirements/$part.txt"
done

"$venv/bin/uv" pip compile requirements/lint.in --python-version 3.11 --quiet --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links "${links[@]}" --output-file "$new"
{
    echo "# Locked by \`make lock\` for Python 3.11; edit requirements/lint.in, not this file."
    cat "$new"
} >requirements/lint.txt

(cd scripts && npm install --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund >/dev/null)
if grep -nE '"resolved"|https?://[^"]*\.tgz' scripts/package-lock.json; then
    echo "opportune: package-lock.json names a registry host; see the lines above" >&2
    exit 1
fi
echo "opportune: locked $(grep -c '^[a-z0-9]' "$out") Python packages and the Node programs" >&2
