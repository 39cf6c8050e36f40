"""What a package may lose: everything here was removed and the packaged functions still ran (tests/infra).

The paths are relative to site-packages. A pattern that matches nothing any more is reported, so that the list does
not outlive the libraries it was written for.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

#: distributions of the lock that nothing imports at run time
UNUSED: Final = {
    "dateparser": "prometheus-api-client only needs it to parse dates written in words",
    "flatbuffers": "ONNX Runtime's conversion tools",
    "msal-extensions": "token caches on disk; ours are in memory",
    "multidict": "through yarl",
    "packaging": "ONNX Runtime's conversion tools",
    "propcache": "through yarl",
    "protobuf": "ONNX Runtime's conversion tools",
    "pycparser": "cffi needs it to compile C declarations, not to load compiled ones",
    "pytz": "through dateparser",
    "regex": "through dateparser",
    "tzlocal": "through dateparser",
    "yarl": "Azure's asynchronous clients; the others do without it",
}

#: AWS services the code talks to, or that signing in needs; every other service description of botocore goes
AWS_SERVICES: Final = frozenset(
    {"dynamodb", "s3", "sagemaker", "sagemaker-runtime", "secretsmanager", "sqs", "ssm", "sts"}
)

#: pattern -> why it is not needed
REMOVED: Final = {
    "bin": "console scripts",
    "**/tests": "the libraries' own tests",
    "**/*.pyi": "types for checkers",
    "**/*.pxd": "headers for Cython",
    "**/*.pyx": "sources of compiled modules",
    "aws_lambda_powertools/event_handler": "routing: Flask does it",
    # azure/data/tables/_generated/aio stays: the synchronous client imports it.
    "azure/data/tables/aio": "asynchronous clients",
    "azure/identity/aio": "asynchronous clients",
    "azure/storage/*/_generated/aio": "asynchronous clients",
    "azure/storage/*/aio": "asynchronous clients",
    "boto3/data": "the resource interface: only clients are used",
    "boto3/examples": "documentation",
    "cffi": "writes bindings; cryptography loads its compiled part, which lies beside",
    "numpy/_core/_*_tests.*.so": "numpy's own tests",
    "numpy/_core/_simd.*.so": "numpy's own tests",
    "numpy/_core/include": "C headers",
    "numpy/_core/lib": "static libraries",
    "numpy/_pyinstaller": "build tool",
    "numpy/f2py": "build tool",
    "numpy/random/lib": "static libraries",
    "onnxruntime/capi/libonnxruntime.so.*": "for C programs: the Python module carries its own copy",
    "onnxruntime/datasets": "examples",
    "onnxruntime/quantization": "offline tool",
    "onnxruntime/tools": "offline tool",
    "onnxruntime/transformers": "offline tool",
}

#: of each distribution's metadata, what is kept: the version, entry points and the licences
KEPT_METADATA: Final = ("METADATA", "entry_points.txt", "licenses", "LICENSE", "LICENSE.txt", "NOTICE")


def trim(site: Path) -> list[str]:
    """Remove what is not needed from `site`; returns the patterns of installed libraries that matched nothing."""
    idle = []
    for pattern in REMOVED:
        matches = sorted(site.glob(pattern))
        if not matches and (site / pattern.partition("/")[0]).exists():
            idle.append(pattern)
        for path in matches:
            _remove(path)
    for info in site.glob("*.dist-info"):
        for path in info.iterdir():
            if path.name not in KEPT_METADATA:
                _remove(path)
    _trim_botocore(site / "botocore" / "data")
    return idle


def _trim_botocore(data: Path) -> None:
    for service in [path for path in data.iterdir() if path.is_dir()]:
        if service.name not in AWS_SERVICES:
            _remove(service)
            continue
        for version in sorted(path for path in service.iterdir() if path.is_dir())[:-1]:
            _remove(version)
        for example in service.glob("*/examples-1.json*"):
            _remove(example)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
