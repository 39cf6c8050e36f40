"""What is deployed: small enough, complete, nothing in it that a function must not carry."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from infra.package import LIMITS_MB, PackageError, check_limit, compile_modules, python313, size_mb, write_zip
from local.runtimes import PYTHON, ROOT, tree_digest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packages")]
SITE = {"aws": "", "azure": ".python_packages/lib/site-packages"}
#: imports every module that a function of the cloud can reach, from the package alone
IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path[:0] = {paths!r}
sys.path[:] = [p for p in sys.path if "site-packages" not in p or ".python_packages" in p]
for package in ("functions", "policy", "shared"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if module.name not in {optional!r}:
            importlib.import_module(module.name)
print(len(sys.modules))
"""
#: rules that need a library which is not packaged; bringing one in is documented with the rule
OPTIONAL = [
    "policy.training.baselines.detectors",
    "policy.training.baselines.retrainopt_learned",
    "policy.training.baselines.upf",
]


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_the_package_is_below_its_limit(packages, cloud):
    assert 50 < size_mb(packages / cloud) <= LIMITS_MB[cloud]


def test_the_zip_is_below_its_limit_and_holds_the_folder(packages):
    assert size_mb(packages / "aws.zip") <= LIMITS_MB["aws zip"]
    names = zipfile.ZipFile(packages / "aws.zip").namelist()
    assert sorted(names) == sorted(
        p.relative_to(packages / "aws").as_posix() for p in (packages / "aws").rglob("*") if p.is_file()
    )


@pytest.mark.timeout(900)
def test_the_package_for_graviton_holds_arm_code_alone_and_keeps_the_limits(tmp_path):
    command = [sys.executable, "-m", "infra.package", "--cloud", "aws", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "ARCH": "arm64"}, capture_output=True, text=True)
    if "No matching distribution" in done.stderr:
        pytest.skip(f"the package index has no wheel for it: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr  # over a limit is an error too
    machines = {path.name: path.read_bytes()[18:20] for path in (tmp_path / "aws").rglob("*.so*")}
    assert any(name.startswith("onnxruntime") for name in machines)
    assert set(machines.values()) == {b"\xb7\x00"}, "ELF's number of AArch64"


def test_a_package_over_its_limit_is_refused(tmp_path, monkeypatch):
    (tmp_path / "large").write_bytes(bytes(2_000_000))
    monkeypatch.setitem(LIMITS_MB, "aws", 1.0)
    with pytest.raises(PackageError, match=r"2\.0 MB, the limit is 1"):
        check_limit("aws", tmp_path)


@pytest.mark.parametrize(
    ("cloud", "unwanted"),
    [
        ("aws", ["torch", "transformers", "gymnasium", "functions/azure", "policy/training"]),
        ("azure", ["torch", "transformers", "gymnasium", "aws_lambda_powertools", "functions/aws", "policy/training"]),
    ],
)
def test_nothing_is_in_it_that_a_function_must_not_carry(packages, cloud, unwanted):
    present = [name for name in unwanted for base in ("", SITE[cloud]) if (packages / cloud / base / name).exists()]
    assert not present


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_every_module_imports_from_the_package_alone(packages, cloud):
    root = packages / cloud
    code = IMPORT_ALL.format(paths=[str(root), str(root / SITE[cloud])], optional=OPTIONAL)
    done = subprocess.run([str(PYTHON), "-I", "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_every_module_is_compiled_for_the_functions_python(packages, cloud):
    sources = list((packages / cloud).rglob("*.py"))
    missing = [p for p in sources if not (p.parent / "__pycache__" / f"{p.stem}.cpython-313.pyc").exists()]
    assert sources
    assert not missing


def test_the_shipped_policies_are_in_it(packages):
    shipped = sorted(p.name for p in (ROOT / "policy/models").glob("*.onnx"))
    assert shipped
    assert sorted(p.name for p in (packages / "aws/policy/models").glob("*.onnx")) == shipped


def test_the_same_content_gives_the_same_zip(tmp_path):
    for name, order, age_s in (("one", "ab", 0), ("two", "ba", 86400)):
        for file in order:
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / file).write_text(file)
            os.utime(tmp_path / name / file, (age_s, age_s))
        write_zip(tmp_path / name, tmp_path / f"{name}.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_the_same_sources_compile_to_the_same_bytes(packages, tmp_path):
    for package in ("functions", "policy", "shared"):
        shutil.copytree(packages / "aws" / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    compile_modules(python313(), tmp_path, "/var/task")
    for package in ("functions", "policy", "shared"):
        assert tree_digest(tmp_path / package) == tree_digest(packages / "aws" / package)


def test_no_python_of_the_functions_version_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PYTHON313", "/nowhere/python3.13")
    with pytest.raises(PackageError, match="PYTHON313="):
        python313()


def test_publishing_from_the_root_uploads_the_same_project_files(packages):
    ignored = [
        "git",
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--ignored",
        "--exclude-from=.funcignore",
    ]
    tracked = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    run = {"cwd": ROOT, "capture_output": True, "text": True, "check": True}
    skipped = set(subprocess.run(ignored, **run).stdout.split("\n"))
    uploaded = {name for name in subprocess.run(tracked, **run).stdout.split("\n") if name and name not in skipped}
    packaged = {
        p.relative_to(packages / "azure").as_posix()
        for p in (packages / "azure").rglob("*")
        if p.is_file() and ".python_packages" not in p.parts and "__pycache__" not in p.parts
    }
    assert uploaded - packaged == {"requirements.txt", "requirements/functions-azure.txt"}
    assert packaged <= uploaded
