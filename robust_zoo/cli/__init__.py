"""The `robust-zoo` command."""

import sys

import typer

from robust_zoo.cli import evaluate, models, plot, reproduce, train

app = typer.Typer(
    help="A Keras model zoo of image classifiers that withstand adversarial attack.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.command("list")(models.list_models)
app.command()(models.show)
app.command()(evaluate.evaluate)
app.command()(train.train)
app.command()(models.publish)
app.command()(reproduce.reproduce)
app.command()(models.cards)

plot_app = typer.Typer(no_args_is_help=True, help="Draws pictures of models of one dataset.")
plot_app.command()(plot.curves)
plot_app.command()(plot.landscape)
plot_app.command()(plot.transfer)
plot_app.command()(plot.roll_off)
plot_app.command()(plot.top_k)
plot_app.command()(plot.fooling)
plot_app.command()(plot.fooling_images)
plot_app.command()(plot.robustness_curve)
plot_app.command()(plot.capacity)
app.add_typer(plot_app, name="plot")


def main() -> None:
    """Runs the command: 0 done, 1 failed with one sentence on stderr, 2 wrong usage."""
    try:
        app()
    except Exception as error:
        sentence = " ".join(str(error).split()) or type(error).__name__
        print(f"robust-zoo: {sentence}", file=sys.stderr)
        sys.exit(1)
