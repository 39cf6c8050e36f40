#!/usr/bin/env bash
# Fetch the clouds' own runtimes, which run the packaged functions in the tests: install-runtimes.sh VENV TOOLS
#
#   VENV (Python 3.13)          awslambdaric and azure-functions-runtime, pinned by requirements/runtimes.txt
#   TOOLS/bin/aws-lambda-rie    AWS's Lambda runtime emulator, out of the wheel of the aws-sam-cli that carries it
#
# PYTHON313 names the interpreter when python3.13 is not on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:?usage: install-runtimes.sh VENV TOOLS}
tools=${2:?usage: install-runtimes.sh VENV TOOLS}
sam_cli=1.170.0

say() { printf 'opportune: %s\n' "$*" >&2; }
is_313() { "$1" -c 'import sys, venv; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null; }

python=
for candidate in "${PYTHON313:-}" python3.13 "$HOME"/.pyenv/versions/3.13.*/bin/python python3; do
    if [[ -n $candidate ]] && is_313 "$candidate"; then
        python=$candidate
        break
    fi
done
if [[ -z $python ]]; then
    say "Python 3.13 with the venv module was not found; the functions run on it."
    say "Install it (pyenv install 3.13, apt-get install python3.13-venv, brew install python@3.13),"
    say "or name it: make package PYTHON313=/path/to/python3.13"
    exit 1
fi
is_313 "$venv/bin/python" || "$python" -m venv --clear "$venv"
say "installing the functions' runtimes into $venv"
PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip install -qq --no-deps -r requirements/runtimes.txt

mkdir -p "$tools/bin"
if [[ $(cat "$tools/bin/aws-lambda-rie.version" 2>/dev/null) != "$sam_cli" ]]; then
    say "fetching AWS's Lambda runtime emulator"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # Only the wheel: the emulator is a static program inside it, none of its Python packages are needed.
    "$venv/bin/python" -m pip download -qq --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$work" "aws-sam-cli==$sam_cli"
    machine=$(uname -m | sed 's/aarch64/arm64/')
    "$venv/bin/python" - "$work" "$tools/bin/aws-lambda-rie" "$machine" <<'EOF'
import glob, pathlib, sys, zipfile

work, target, machine = sys.argv[1:]
(wheel,) = glob.glob(f"{work}/*.whl")
program = zipfile.ZipFile(wheel).read(f"samcli/local/rapid/aws-lambda-rie-{machine}")
path = pathlib.Path(target)
path.write_bytes(program)
path.chmod(0o755)
EOF
    echo "$sam_cli" >"$tools/bin/aws-lambda-rie.version"
fi
say "ready: $("$venv/bin/python" --version) in $venv, aws-lambda-rie in $tools/bin"
