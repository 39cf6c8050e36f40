"""The `opportune` command. Each subcommand is a module of its own, imported only when it is used."""

from __future__ import annotations

import importlib
import sys
from typing import Final

import click

from shared.errors import OpportuneError

#: subcommand -> (module holding a click command of that name, one-line help)
COMMANDS: Final = {
    "backtest": ("cli.backtest", "Replay policies over drift traces, or over your own Prometheus history."),
    "collect": ("cli.collect", "Write the historic state vectors of a Prometheus as CSV and Parquet."),
    "decide": ("cli.decide", "One dry-run tick against a Prometheus, explained."),
    "decisions": ("cli.decisions", "What was decided, and why, since a time."),
    "demo": ("cli.demo", "The closed loop on the embedded local clouds, ending in a report."),
    "doctor": ("cli.doctor", "Check settings, credentials and every service, each line ok or what to do."),
    "pause": ("cli.pause", "Hold new retrains on every cloud."),
    "redrive": ("cli.redrive", "Send dead-lettered messages back to their queue."),
    "resume": ("cli.pause", "Allow retrains again."),
    "status": ("cli.status", "Where the deployment stands: heartbeat, routes, jobs, dead letters."),
    "trace": ("cli.trace", "Build and inspect drift traces."),
    "train": ("cli.train", "Train a retrain policy and export it to ONNX."),
}


class LazyGroup(click.Group):
    """Knows its subcommands by name, so that `--help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in alphabetical order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module that holds the command."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The one-line helps, from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="opportune")
def opportune() -> None:
    """Decide when and where to retrain a deployed language model, do it, and release it safely.

    Example: opportune demo --scenario drift --out build/demo
    """


def main() -> None:
    """Run the command; a wrong input is one line on standard error and exit code 2."""
    try:
        opportune.main(standalone_mode=False)
    except click.ClickException as exc:
        click.echo(f"opportune: {exc.format_message()}", err=True)
        sys.exit(2)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except OpportuneError as exc:
        click.echo(f"opportune: {exc}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
