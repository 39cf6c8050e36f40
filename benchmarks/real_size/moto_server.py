"""moto's server that keeps an object's bytes at hand: it copies them, all of them, for every range that is asked for.

What it answers stays the same.
"""

from __future__ import annotations

import sys

from moto.s3.models import FakeKey
from moto.server import main
from werkzeug.serving import WSGIRequestHandler

_read = FakeKey.value.fget
_write = FakeKey.value.fset


def _value(key: FakeKey) -> bytes:
    if "_bytes" not in key.__dict__:
        key.__dict__["_bytes"] = _read(key)
    return bytes(key.__dict__["_bytes"])


def _replace(key: FakeKey, new: bytes) -> None:
    key.__dict__.pop("_bytes", None)
    _write(key, new)


if __name__ == "__main__":
    FakeKey.value = property(_value, _replace)
    # connections stay open, as those of AWS do
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    main(sys.argv[1:])
