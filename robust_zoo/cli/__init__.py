"""The `robust-zoo` command."""

import sys
import warnings
from typing import Annotated, TextIO

import typer

from robust_zoo import __version__
from robust_zoo.cli import (
    certify,
    challenge,
    corruptions,
    evaluate,
    export,
    models,
    plan,
    plot,
    port,
    reproduce,
    site,
    train,
    verify,
)
from robust_zoo.cli.common import InterruptedRunError, in_flags

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"robust-zoo {__version__}")
        raise typer.Exit


@app.callback()
def _robust_zoo(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Prints the version."
        ),
    ] = False,
) -> None:
    """A Keras model zoo of image classifiers that withstand adversarial attack."""


app.command("list")(models.list_models)
app.command()(models.show)
app.command()(evaluate.evaluate)
app.command()(plan.plan)
app.command()(plan.measure)
app.command()(plan.merge)
app.command()(verify.verify)
app.command()(challenge.challenge)
app.command()(corruptions.corruptions)
app.command()(certify.certify)
app.command()(train.train)
app.command()(port.port)
app.command()(export.export)
app.command()(models.publish)
app.command()(reproduce.reproduce)
app.command()(models.index)
app.command()(models.cards)
app.command()(site.site)

plot_app = typer.Typer(no_args_is_help=True, help="Draws pictures of models of one dataset.")
plot_app.command()(plot.curves)
plot_app.command()(plot.radii)
plot_app.command()(plot.corruptions)
plot_app.command()(plot.landscape)
plot_app.command()(plot.transfer)
plot_app.command()(plot.roll_off)
plot_app.command()(plot.top_k)
plot_app.command()(plot.fooling)
plot_app.command()(plot.fooling_images)
plot_app.command()(plot.robustness_curve)
plot_app.command()(plot.capacity)
plot_app.command()(plot.training)
app.add_typer(plot_app, name="plot")


def main() -> None:
    """Runs the command: 0 done, 1 failed with one sentence on stderr, 2 wrong usage, 75 out of time, 130 Ctrl-C."""
    warnings.showwarning = _show_warning
    try:
        app()
    except InterruptedRunError as interrupted:
        print(f"robust-zoo: {interrupted}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        line = "".join(c if c.isprintable() else " " for c in str(error))
        sentence = " ".join(line.split()) or type(error).__name__
        print(f"robust-zoo: {in_flags(sentence, _options())}", file=sys.stderr)
        sys.exit(1)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One line on stderr, without the place in the code that it came from."""
    print(f"robust-zoo: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _options() -> set[str]:
    """The names of the options that were given or could be, of the command that ran."""
    command = typer.main.get_command(app)
    for word in sys.argv[1:]:
        command = getattr(command, "commands", {}).get(word, command)
    return {parameter.name for parameter in command.params if parameter.param_type_name == "option"}
