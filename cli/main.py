"""The `opportune` command. Each subcommand is a module of its own, imported only when it is used."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

from cli.output import complain
from shared.errors import OpportuneError

#: subcommand -> (module holding a click command of that name, one-line help)
COMMANDS: Final = {
    "backtest": ("cli.backtest", "Replay policies over drift traces, or over your own Prometheus history."),
    "collect": ("cli.collect", "Write the historic state vectors of a Prometheus as CSV and Parquet."),
    "costs": ("cli.costs", "What a month costs with these settings, from the shipped price table."),
    "decide": ("cli.decide", "One dry-run tick against a Prometheus, explained."),
    "decisions": ("cli.decisions", "What was decided, and why, since a time."),
    "demo": ("cli.demo", "The closed loop on the embedded local clouds, ending in a report."),
    "deploy": ("cli.deploy", "Build, push and deploy what one cloud needs, each command shown."),
    "destroy": ("cli.deploy", "Remove a deployment; what is kept is said."),
    "doctor": ("cli.doctor", "Check settings, credentials and every service, each line ok or what to do."),
    "pause": ("cli.pause", "Hold new retrains and releases on every cloud."),
    "redrive": ("cli.redrive", "Send dead-lettered messages back to their queue."),
    "release": ("cli.release", "A service's first model, or another version that is uploaded already."),
    "releases": ("cli.releases", "What each cloud's instances are to serve, and what they have loaded."),
    "resume": ("cli.pause", "Allow retrains again."),
    "rollback": ("cli.release", "The version before, or another one, serves again."),
    "stop": ("cli.pause", "End a retrain, wherever it is; its model does not go live."),
    "status": ("cli.status", "Where the deployment stands: heartbeat, routes, jobs, dead letters."),
    "trace": ("cli.trace", "Build and inspect drift traces."),
    "train": ("cli.train", "Train a retrain policy and export it to ONNX."),
}

#: exit codes; docs/configuration.md has the same table
DONE: Final = 0
PARTLY: Final = 1
REFUSED: Final = 2
INTERRUPTED: Final = 130

EPILOG: Final = """\b
Exit codes:
  0    done
  1    not all of it: one cloud did not answer, a check failed, no metrics to decide from
  2    nothing was done: wrong usage, input or setting, or what is needed did not answer
  130  interrupted
"""


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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but a name that is none is answered with those there are."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}; there are {', '.join(sorted(COMMANDS))}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The one-line helps, from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EPILOG)
@click.option(
    "--profile", metavar="NAME", envvar="OPPORTUNE_PROFILE", help="Settings by name, from the nearest opportune.toml."
)
@click.version_option(package_name="opportune")
def opportune(profile: str | None) -> None:
    """Decide when and where to retrain a deployed language model, do it, and release it safely.

    \b
    Example: opportune demo --scenario drift --out build/demo
    Example: opportune --profile staging status
    """
    if profile:
        from cli.profiles import use

        use(profile, os.environ)


def main() -> None:
    """Run the command; what went wrong is one line on standard error, and the exit code says how far it got."""
    try:
        opportune.main(prog_name="opportune", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        sys.exit(REFUSED)
    except click.UsageError as exc:
        see = f" See {exc.ctx.command_path} --help" if exc.ctx else ""
        complain(f"{exc.format_message()}{see}")
        sys.exit(REFUSED)
    except click.ClickException as exc:
        complain(exc.format_message())
        sys.exit(REFUSED)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except OpportuneError as exc:
        complain(str(exc))
        sys.exit(REFUSED)
    except BrokenPipeError:
        # Whoever read the output wants no more of it (`| head`); nothing is left to say, at the exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(PARTLY)


if __name__ == "__main__":
    main()
