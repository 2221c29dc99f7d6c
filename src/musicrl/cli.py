"""The `musicrl` command. Each command parses, calls one function and prints what it returned; no logic lives here.

Rooms are imported inside their command, so that `musicrl --help` does not wait for torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from musicrl import __version__
from musicrl.errors import UserError


class _Sentences(TyperGroup):
    """Turns what a user can mend into one line on stderr and exit code 2."""

    def invoke(self, ctx: Any) -> Any:  # typer moved its Context between releases
        try:
            return super().invoke(ctx)
        except UserError as error:
            message = " ".join(str(error).split())
        except KeyboardInterrupt:
            message = "interrupted; what was saved is kept"
        print(f"error: {message}", file=sys.stderr)
        raise typer.Exit(2)


_PLAIN: dict[str, Any] = {"no_args_is_help": True, "rich_markup_mode": None}
app = typer.Typer(
    cls=_Sentences,
    help="Finetune text-to-music models from human feedback.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    **_PLAIN,
)
corpus_app = typer.Typer(help="Build a corpus of captioned music.", **_PLAIN)
preferences_app = typer.Typer(help="Look into the preference store.", **_PLAIN)
reward_app = typer.Typer(help="Train reward models.", **_PLAIN)
app.add_typer(corpus_app, name="corpus")
app.add_typer(preferences_app, name="preferences")
app.add_typer(reward_app, name="reward")

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace those of the file.")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"musicrl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # pyright: ignore[reportUnusedParameter]
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


@app.command()
def config(
    stage: Annotated[str | None, typer.Argument(help="Stage to print; without it, the names of all stages.")] = None,
    overrides: Overrides = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="TOML file to read first.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/config.md: all stages.")] = False,
) -> None:
    """Print a stage's settings as the TOML a run would read, each with its meaning."""
    from musicrl import toml
    from musicrl.config import STAGES

    if markdown:
        print(toml.markdown(STAGES), end="")
    elif stage is None:
        print("\n".join(STAGES))
    else:
        print(toml.to_toml(toml.load(toml.pick(STAGES, stage), file, overrides or ()), describe=True), end="")


@app.command()
def doctor() -> None:
    """Tell what hardware, weights and programs are here, what is missing, and how to get it."""
    from musicrl import doctor

    findings = doctor.examine()
    print(doctor.report(findings))
    raise typer.Exit(0 if all(finding.ok or finding.optional for finding in findings) else 1)


def main() -> None:
    """Run the command line; the entry point of `musicrl`."""
    app()
