#!/usr/bin/env bash
# Make (or update) the virtual environment with the locked packages: install-python.sh PYTHON VENV
#
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, ...) are honoured. TORCH names another build of torch than the
# locked one, for instance TORCH='torch==2.13.0+cpu' together with PIP_EXTRA_INDEX_URL set to PyTorch's CPU index:
# on Linux the default build is the CUDA one, which needs gigabytes of libraries that nothing here uses.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=${1:?usage: install-python.sh PYTHON VENV}
venv=${2:?usage: install-python.sh PYTHON VENV}
lock=requirements/all.txt

is_311() { "$1" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; }
say() { printf 'opportune: %s\n' "$*" >&2; }

python=
for candidate in "$wanted" python3.11 python3 python; do
    if is_311 "$candidate"; then
        python=$candidate
        break
    fi
done
if [[ -z $python ]]; then
    say "Python 3.11 with the venv module was not found (tried $wanted, python3.11, python3, python)."
    say "Install it (apt-get install python3.11 python3.11-venv, brew install python@3.11, pyenv install 3.11),"
    say "or name it: make install PYTHON=/path/to/python3.11"
    exit 1
fi

if ! is_311 "$venv/bin/python"; then
    say "making $venv"
    "$python" -m venv --clear "$venv"
fi

requirements=$(mktemp)
trap 'rm -f "$requirements"' EXIT
if [[ -n ${TORCH:-} ]]; then
    { grep -v '^torch==' "$lock"; printf '%s\n' "$TORCH"; } >"$requirements"
else
    cp "$lock" "$requirements"
fi

packages=$(grep -c '^[a-z0-9]' "$requirements")
say "installing $packages locked packages into $venv (the first time takes a few minutes)"
# The lock holds every package, so nothing is resolved: no surprise can come in through a dependency.
PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip install -qq --no-deps -r "$requirements"

if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    say "torch does not load alone (a CUDA build?); adding the libraries it names. See TORCH in $0 for a lighter way."
    "$venv/bin/python" -m pip install --quiet "$(grep '^torch==' "$requirements")"
    "$venv/bin/python" -c 'import torch'
fi

"$venv/bin/python" -m pip install --quiet --no-deps --editable .
say "ready: $("$venv/bin/python" --version), $packages packages"
