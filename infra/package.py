"""Build what is deployed: build/aws (and its zip) and build/azure, for Python 3.13 on Linux.

    python -m infra.package [--cloud aws|azure] [--arch x86_64|arm64] [--out build]

Wheels are fetched for the target platform, whatever this machine is; no compiler and no Docker are involved. The same
inputs give the same bytes: times and permissions are fixed, and the compiled modules are checked by nothing at run
time (`unchecked-hash`), because in a deployed package their sources cannot change.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from infra.trim import UNUSED, trim

ROOT: Final = Path(__file__).resolve().parents[1]
PYTHON: Final = "3.13"
ARCHITECTURES: Final = {"x86_64": "x86_64", "arm64": "aarch64"}
CLOUDS: Final = ("aws", "azure")
#: where the clouds mount a package; compiled modules carry it in their tracebacks
MOUNTED_AT: Final = {"aws": "/var/task", "azure": "/home/site/wwwroot"}
#: megabytes, 10^6 bytes: below the clouds' own limits, so that growth is noticed here first
LIMITS_MB: Final = {"aws": 200.0, "aws zip": 50.0, "azure": 200.0}
PROJECT: Final = ("functions", "policy", "shared")
#: what the functions of a cloud never import: beginnings of paths
_OFFLINE: Final = ("policy/training/",)
LEFT_OUT: Final = {"aws": ("functions/azure/", *_OFFLINE), "azure": ("functions/aws/", *_OFFLINE)}
ROOT_FILES: Final = {"aws": (), "azure": ("function_app.py", "host.json")}
SUFFIXES: Final = (".py", ".onnx", ".json")
#: the oldest time a zip can hold, so that every build has it
ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)


class PackageError(Exception):
    """The package cannot be built; the message says what to do."""


def python313() -> str:
    """An interpreter of the functions' version, which compiles the modules.

    Raises:
        PackageError: there is none.
    """
    named = os.environ.get("PYTHON313")
    candidates = [named] if named else [str(ROOT / ".venv313/bin/python"), f"python{PYTHON}"]
    if not named:
        candidates += sorted((str(p) for p in Path.home().glob(f".pyenv/versions/{PYTHON}.*/bin/python")), reverse=True)
    for candidate in candidates:
        try:
            probe = subprocess.run(
                [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
            )
        except OSError:
            continue
        if probe.returncode == 0 and probe.stdout.strip() == PYTHON:
            return candidate
    raise PackageError(
        f"Python {PYTHON} was not found (tried {', '.join(candidates)}); the functions run on it and their modules are "
        "compiled with it. Install it (pyenv install 3.13, apt-get install python3.13, uv python install 3.13), "
        "or name it: PYTHON313=/path/to/python3.13"
    )


def build(cloud: str, arch: str, out: Path) -> Path:
    """Build the package of one cloud under `out` and return its folder.

    Raises:
        PackageError: a wheel is missing, or the package is over its limit.
    """
    compiler = python313()
    final = out / cloud
    work = out / f"{cloud}.partial"
    shutil.rmtree(work, ignore_errors=True)
    site = work if cloud == "aws" else work / ".python_packages" / "lib" / "site-packages"
    site.mkdir(parents=True)
    _install(compiler, site, ROOT / "requirements" / f"functions-{cloud}.txt", ARCHITECTURES[arch])
    for pattern in trim(site):
        print(f"opportune: {cloud}: {pattern} in infra/trim.py matches nothing any more", file=sys.stderr)
    _copy_project(work, cloud)
    compile_modules(compiler, work, MOUNTED_AT[cloud])
    shutil.rmtree(final, ignore_errors=True)
    work.rename(final)
    return final


def _install(python: str, site: Path, lock: Path, machine: str) -> None:
    """Fetch with the pip of the functions' Python: an older one judges by the Python it runs on itself."""
    wanted = [
        line
        for line in lock.read_text().splitlines()
        if line and not line.startswith(("#", " ")) and line.split("==")[0] not in UNUSED
    ]
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-compile", "--target", str(site), "--only-binary", ":all:"]
    command += ["--python-version", PYTHON, "--implementation", "cp"]
    for glibc in ("2_28", "2_17"):  # pip takes only the platforms named, not the older ones they include
        command += ["--platform", f"manylinux_{glibc}_{machine}"]
    command += ["--platform", f"manylinux2014_{machine}"]
    done = subprocess.run([*command, *wanted], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise PackageError(f"the packages of {lock.name} could not be fetched for {machine}:\n{done.stderr.strip()}")


def _copy_project(work: Path, cloud: str) -> None:
    sources = [path for package in PROJECT for path in sorted((ROOT / package).rglob("*")) if path.is_file()]
    sources += [ROOT / name for name in ROOT_FILES[cloud]]
    for source in sources:
        name = source.relative_to(ROOT).as_posix()
        if source.suffix in SUFFIXES and "__pycache__" not in source.parts and not name.startswith(LEFT_OUT[cloud]):
            target = work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def compile_modules(python: str, work: Path, mounted_at: str) -> None:
    """Compile every module below `work`, with the paths it will have where it is mounted.

    Raises:
        PackageError: a module does not compile.
    """
    command = [python, "-m", "compileall", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash"]
    # One fixed hash seed: the order inside compiled sets follows it, and the bytes must be the same every time.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [*command, "-s", str(work), "-p", mounted_at, str(work)], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise PackageError(f"modules do not compile with Python {PYTHON}:\n{done.stdout.strip()}{done.stderr.strip()}")


def write_zip(folder: Path, target: Path) -> None:
    """The folder as a zip with fixed times and permissions, so that equal content gives equal bytes."""
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in _files(folder):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, path.read_bytes())
    partial.replace(target)


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def size_mb(path: Path) -> float:
    """Size of a file, or of all files of a folder, in megabytes (10^6 bytes)."""
    return (sum(f.stat().st_size for f in _files(path)) if path.is_dir() else path.stat().st_size) / 1e6


def check_limit(name: str, path: Path) -> float:
    """The size in megabytes.

    Raises:
        PackageError: it is over the limit of `name`.
    """
    size = size_mb(path)
    if size > LIMITS_MB[name]:
        raise PackageError(f"{path} has {size:.1f} MB, the limit is {LIMITS_MB[name]:.0f}; see infra/trim.py")
    return size


def main() -> None:
    """Build the wanted packages and say how large they are."""
    parser = argparse.ArgumentParser(prog="python -m infra.package", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cloud", choices=CLOUDS, action="append", help="only this cloud; both otherwise")
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default=os.environ.get("ARCH", "x86_64"))
    parser.add_argument("--out", type=Path, default=ROOT / "build")
    arguments = parser.parse_args()
    if arguments.arch not in ARCHITECTURES:
        parser.error(f"ARCH is {arguments.arch!r}; allowed: {', '.join(sorted(ARCHITECTURES))}")
    try:
        for cloud in arguments.cloud or CLOUDS:
            folder = build(cloud, arguments.arch, arguments.out.resolve())
            line = f"opportune: {folder} {check_limit(cloud, folder):.1f} MB"
            if cloud == "aws":
                archive = folder.with_name("aws.zip")
                write_zip(folder, archive)
                digest = hashlib.sha256(archive.read_bytes()).hexdigest()
                line += f", {archive.name} {check_limit('aws zip', archive):.1f} MB, sha256 {digest[:16]}"
            print(f"{line} ({arguments.arch})", file=sys.stderr)
    except PackageError as exc:
        sys.exit(f"opportune: {exc}")


if __name__ == "__main__":
    main()
