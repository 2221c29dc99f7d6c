"""The `musicrl` command. Each command parses, calls one function and prints what it returned; no logic lives here.

Rooms are imported inside their command, so that `musicrl --help` does not wait for torch.
"""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from musicrl import __version__
from musicrl.errors import UserError

_REFUSED = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
)
"""Errors of the file system that a user can mend."""


class _Sentences(TyperGroup):
    """Turns what a user can mend into one line on stderr and exit code 2."""

    def invoke(self, ctx: Any) -> Any:  # typer moved its Context between releases
        try:
            return super().invoke(ctx)
        except UserError as error:
            message = " ".join(str(error).split())
        except KeyboardInterrupt:
            message = "interrupted; what was saved is kept"
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            message = (
                f"{error.strerror}: {error.filename or 'writing'}; what was finished is kept;"
                " free some space or give another folder, and run again"
            )
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


@app.command()
def quickstart(
    file: Annotated[Path | None, typer.Argument(help="TOML file of settings, such as recipes/alignment.toml.")] = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the circle.")] = Path("runs/quickstart"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew instead of continuing what is there.")] = False,
) -> None:
    """Go round the whole circle: pairs, votes, rewards, R, U, RU, side by side, report."""
    from musicrl import config, quickstart

    file, overrides = _file_first(file, overrides)
    results = quickstart.quickstart(
        config.load(config.QuickstartConfig, file, overrides),
        out,
        fresh=fresh,
        say=lambda line: print(line, flush=True),
    )
    _print_pairs(results)
    print(f"peak memory {results['peak_rss_mb']:.0f} MB; {results['listeners']}")
    print(f"report: {out / 'report.html'}\nresults: {out / 'results.json'}")
    print(f'next: musicrl generate "a slow sad waltz on the accordion" --model {out / "ru" / "policy"} -o out/')


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What the music should be.")],
    n: Annotated[int, typer.Option("-n", help="Clips.")] = 1,
    seconds: Annotated[float, typer.Option(help="Length of a clip, at most 60.")] = 10.0,
    model: Annotated[str, typer.Option(help="base, r, u, ru, or the folder of a policy.")] = "base",
    seed: Annotated[int, typer.Option(help="Seed, 0 to 2,147,483,647; the same seed gives the same clips.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the WAV files.")] = Path("out"),
) -> None:
    """Make clips of a prompt and write them as WAV files."""
    from musicrl.policies import generate

    written = generate.write(prompt, n=n, seconds=seconds, model=model, seed=seed, folder=out)
    for path in written.paths:
        print(path)
    print(
        f"{written.audio_seconds:g} s of audio in {written.wall_seconds:.1f} s, {written.loading_seconds:.1f} s more to"
        f" load the model; peak memory {written.peak_rss_mb:.0f} MB",
        file=sys.stderr,
    )


@app.command()
def serve(
    overrides: Overrides = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="TOML file of settings.")] = None,
) -> None:
    """Open the feedback page: type a prompt, hear two clips, give one the trophy."""
    from musicrl import config
    from musicrl.server import run

    run.serve(config.load(config.ServeConfig, file, overrides or ()))


@app.command()
def finetune(
    file: Annotated[Path, typer.Argument(help="Recipe, such as recipes/ru.toml.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; runs/NAME without it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that is there.")] = False,
) -> None:
    """Finetune a policy on rewards by reinforcement learning."""
    from musicrl import config, finetuning

    folder, outcome = finetuning.finetune(
        config.load(config.FinetuneConfig, file, overrides or ()), out or Path("runs") / file.stem, resume=resume
    )
    print(f"{outcome.steps} steps, {outcome.skipped} skipped; ended by {outcome.stopped}\npolicy: {folder}")


@app.command()
def evaluate(
    overrides: Overrides = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="TOML file of settings.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for report and results.")] = Path("runs/evaluate"),
) -> None:
    """Compare models side by side on held-out prompts with simulated raters."""
    from musicrl import config
    from musicrl.evaluation import run

    results = run.evaluate(config.load(config.EvaluateConfig, file, overrides or ()), out)
    _print_pairs(results)
    print(f"report: {out / 'report.html'}")


@app.command()
def pretrain(
    part: Annotated[str, typer.Argument(help="codec, semantic, mulan, tagger, musiclm, fine, or all in order.")],
    overrides: Overrides = None,
    corpus: Annotated[Path, typer.Option("--corpus", help="Corpus folder.")] = Path("data/corpus"),
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the runs.")] = Path("runs/pretrain"),
    file: Annotated[Path | None, typer.Option("--file", "-f", help="TOML file of settings.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that is there.")] = False,
) -> None:
    """Train a part of the base model on a corpus; set MUSICRL_WEIGHTS to the folder of the runs to use it."""
    from musicrl import pretraining

    for folder in pretraining.pretrain(part, corpus, out, file, overrides or (), resume=resume):
        print(folder)


@corpus_app.command("build")
def corpus_build(
    folder: Annotated[Path, typer.Argument(help="Where the corpus goes.")] = Path("data/corpus"),
    overrides: Overrides = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="TOML file of settings.")] = None,
) -> None:
    """Arrange, render and caption public-domain tunes; an interrupted build is continued."""
    from musicrl import config
    from musicrl.corpus import build

    report = build.build(config.load(config.CorpusConfig, file, overrides or ()), folder)
    print(json.dumps(report, indent=2, ensure_ascii=False))


@corpus_app.command("prompts")
def corpus_prompts(
    folder: Annotated[Path, typer.Argument(help="Corpus folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the prompt files go.")],
) -> None:
    """Write training and held-out prompts from a corpus's captions."""
    from musicrl.corpus import prompts

    for split, count in prompts.write(folder, out).items():
        print(f"{split}: {count}")


Store = Annotated[Path, typer.Option("--store", help="Folder of the preference store.")]
_STORE = Path("runs/preferences")


@preferences_app.command("stats")
def preferences_stats(store: Store = _STORE) -> None:
    """Count votes and ratings, and how far raters agree."""
    from musicrl.feedback.store import PreferenceStore

    with PreferenceStore.existing(store) as opened:
        print(json.dumps(opened.stats(), indent=2, ensure_ascii=False))


@preferences_app.command("export")
def preferences_export(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    store: Store = _STORE,
) -> None:
    """Write the current votes and ratings with their clips as JSON lines and audio files."""
    from musicrl.feedback.export import export
    from musicrl.feedback.store import PreferenceStore

    with PreferenceStore.existing(store) as opened:
        manifest = export(opened, out)
    for name, about in manifest["files"].items():
        print(f"{out / name}: {about['rows']} rows")


@preferences_app.command("simulate")
def preferences_simulate(
    overrides: Overrides = None,
    store: Store = Path("runs/rehearsal"),
    file: Annotated[Path | None, typer.Option("--file", "-f", help="TOML file of settings.")] = None,
) -> None:
    """Rehearse: a model makes pairs of clips, simulated users vote on them and rate some."""
    from musicrl import collect, config

    counts = collect.simulate(config.load(config.CollectConfig, file, overrides or ()), store)
    print(", ".join(f"{count} {name}" for name, count in counts.items()) + f"; by simulated listeners, in {store}")


@reward_app.command("train")
def reward_train(
    name: Annotated[str, typer.Argument(help="quality or preference.")],
    overrides: Overrides = None,
    store: Store = _STORE,
    ratings: Annotated[Path | None, typer.Option(help="Ratings file (JSON lines) instead of the store.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; runs/NAME without it.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="TOML file of settings.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run that is there.")] = False,
) -> None:
    """Train a reward model on what is in the preference store."""
    from musicrl import reward_training

    folder, figures = reward_training.train(
        name, store, ratings, out or Path("runs") / name, file, overrides or (), resume=resume
    )
    print(", ".join(f"{key} {value:.4g}" for key, value in figures.items()))
    print(f"model: {folder}")


def _file_first(file: Path | None, overrides: list[str] | None) -> tuple[Path | None, list[str]]:
    # `musicrl quickstart seed=1` names no file: what holds an equals sign is a setting.
    rest = overrides or []
    return (None, [str(file), *rest]) if file is not None and "=" in str(file) else (file, rest)


def _print_pairs(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Side by side, simulated raters")
    for column in ("pair", "win", "tie", "loss", "win/(win+loss) %", "95 % interval", "n"):
        table.add_column(column, justify="left" if column == "pair" else "right")
    for name, pair in results["pairs"].items():
        rate = "–" if pair["rate"] is None else f"{100 * pair['rate']:.1f}"
        interval = "–" if pair["ci95"] is None else " to ".join(f"{100 * bound:.1f}" for bound in pair["ci95"])
        table.add_row(name, *(str(pair[key]) for key in ("win", "tie", "loss")), rate, interval, str(pair["n"]))
    Console().print(table)


def main() -> None:
    """Run the command line; the entry point of `musicrl`."""
    app()
