"""Commands of other programs, each shown before it runs; the first that fails ends it with what to do."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from shared.errors import InvalidInputError, OpportuneError

#: program -> where it comes from
SOURCES: Final = {
    "docker": "install Docker (docs.docker.com/engine/install), or --no-image where the image is pushed already",
    "aws": "install the AWS command line (https://aws.amazon.com/cli), then sign in",
    "az": "install the Azure command line (https://aka.ms/azure-cli), then az login",
    "func": "install Azure Functions Core Tools 4 (npm install -g azure-functions-core-tools@4)",
    "make": "install GNU make",
}


class StepFailedError(OpportuneError):
    """A command ended with an error; what it said stands above."""


@dataclass
class Steps:
    """Runs commands in `root`, or with `dry_run` only shows them."""

    root: Path
    dry_run: bool
    repeat: str  # the command that goes on after what failed was mended
    shown: list[str] = field(default_factory=list)
    ran: int = 0

    def need(self, *programs: str) -> None:
        """Check that the programs are there, before anything runs.

        Raises:
            InvalidInputError: one is not; says where it comes from.
        """
        if self.dry_run:
            return
        for program in programs:
            if shutil.which(program if "/" not in program else str(self.root / program)) is None:
                source = SOURCES.get(program, "make install fetches it")
                raise InvalidInputError(f"{program} is missing; {source}")

    def run(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        cwd: str = ".",
        hint: str = "",
        into: Sequence[str] | None = None,
    ) -> None:
        """Run it, or both of `command | into`, with what they say on standard error.

        Raises:
            StepFailedError: it ended with an error.
        """
        self._show(command, env, cwd, into)
        if self.dry_run:
            return
        if into is None:
            code = self._started(command, env, cwd).returncode
        else:
            said = self._started(command, env, cwd, stdout=subprocess.PIPE)
            code = said.returncode or self._started(into, env, cwd, given=said.stdout).returncode
        if code:
            raise StepFailedError(
                f"{command[0]} ended with exit code {code}, its words are above{'; ' + hint if hint else ''}. "
                f"Then repeat: {self.repeat}"
            )
        self.ran += 1

    def ask(self, *command: str, or_else: str = "", missing: bool = False) -> str:
        """What it prints; with `dry_run` the placeholder `or_else`. With `missing` an error of it is no answer, "".

        Raises:
            StepFailedError: it ended with an error.
        """
        self._show(command, None, ".", None)
        if self.dry_run:
            return or_else
        said = self._started(command, None, ".", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if said.returncode and not missing:
            why = " ".join((said.stderr or b"").decode(errors="replace").split())[-300:]
            raise StepFailedError(f"{command[0]} ended with exit code {said.returncode}: {why}. Repeat: {self.repeat}")
        return "" if said.returncode else (said.stdout or b"").decode(errors="replace").strip()

    def _started(
        self,
        command: Sequence[str],
        env: Mapping[str, str] | None,
        cwd: str,
        stdout: int | None = None,
        stderr: int | None = None,
        given: bytes | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        program = str(self.root / command[0]) if "/" in command[0] else command[0]
        try:
            return subprocess.run(
                [program, *command[1:]],
                cwd=self.root / cwd,
                env={**os.environ, **(env or {})},
                input=given,
                stdin=None if given is not None else subprocess.DEVNULL,
                stdout=2 if stdout is None else stdout,  # standard output is for what this command itself answers
                stderr=stderr,
                check=False,
            )
        except OSError as exc:
            raise StepFailedError(f"{command[0]} cannot be started: {exc.strerror}") from exc

    def _show(
        self, command: Sequence[str], env: Mapping[str, str] | None, cwd: str, into: Sequence[str] | None
    ) -> None:
        words = [*(f"{name}={shlex.quote(value)}" for name, value in (env or {}).items()), shlex.join(command)]
        line = " ".join(words) + (f" | {shlex.join(into)}" if into else "")
        line = f"(cd {cwd} && {line})" if cwd != "." else line
        self.shown.append(line)
        click.echo(f"+ {line}", err=True)
