"""The container's commands: `python -m training_containers train|serve|make-base`."""

from __future__ import annotations

import argparse
import sys

from training_containers.finetune.main import add_commands


def main() -> int:
    """Parse, run one command, return its exit code."""
    if sys.argv[1:2] == ["serve"]:
        # serving has its own options and must not wait for anything of training
        from training_containers.serve.main import main as serve

        return serve(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="training_containers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add_commands(commands)
    commands.add_parser("serve", help="Answer questions over HTTP; see `serve --help`.")
    args = parser.parse_args()
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
