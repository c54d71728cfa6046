"""The site's pictures, as Vega-Lite: drawn in the page, from the numbers themselves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT = "container", 320


def _spec(chart: Any) -> dict[str, Any]:
    return chart.properties(width=_WIDTH, height=_HEIGHT).to_dict()


def scatter(models: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Clean against worst-case accuracy; a click leads to the model's page. `models`: what `data_of` gave."""
    import altair as alt

    keys = ("name", "page", "clean", "worst_case", "parameters", "defense")
    values = [
        {
            **{key: model[key] for key in keys},
            "table": f"{model['dataset_name']}, {model['threat']}",
        }
        for model in models
        if model["worst_case"] is not None
    ]
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_circle(opacity=0.75)
        .encode(
            x=alt.X("clean:Q", title="clean accuracy").axis(format="%"),
            y=alt.Y("worst_case:Q", title="worst-case accuracy").axis(format="%"),
            size=alt.Size("parameters:Q", title="parameters").scale(type="sqrt", range=[30, 500]),
            color=alt.Color("table:N", title="").legend(orient="bottom", columns=2, labelLimit=300),
            href="page:N",
            tooltip=[
                alt.Tooltip("name:N", title="model"),
                alt.Tooltip("table:N", title="measured on"),
                alt.Tooltip("clean:Q", format=".2%"),
                alt.Tooltip("worst_case:Q", title="worst case", format=".2%"),
                alt.Tooltip("parameters:Q", format=","),
                "defense:N",
            ],
        )
    )
    return _spec(chart)


def curves(models: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Accuracy against epsilon with 95% intervals, a line a model; the page fills in those that are compared."""
    import altair as alt

    legend: dict[str, Any] = {
        "orient": "bottom", "columns": 1, "labelLimit": 400, "symbolOpacity": 1,
    }  # fmt: skip
    values = [
        {"model": model["name"], "dash": model["name"], **point}
        for model in models
        for point in model["curve"]
    ]
    base = alt.Chart(alt.Data(values=values, name="curves")).encode(
        x=alt.X("epsilon:Q", title="epsilon").scale(
            type="sqrt"
        ),  # most happens in the smallest balls
        color=alt.Color("model:N", title="").legend(**legend),
    )
    band = base.mark_area(opacity=0.15).encode(
        y=alt.Y("low:Q", title="accuracy").axis(format="%").scale(domain=[0, 1]), y2="high:Q"
    )
    line = base.mark_line(point=True).encode(
        y=alt.Y("accuracy:Q", title="accuracy").axis(format="%"),
        strokeDash=alt.StrokeDash("dash:N", legend=None),
        tooltip=[
            "model:N",
            alt.Tooltip("epsilon:Q", format=".4g"),
            alt.Tooltip("accuracy:Q", format=".2%"),
        ],
    )
    return _spec(alt.layer(band, line))


def history(epochs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Accuracies by epoch, as `load_history` gives them."""
    import altair as alt

    legend: dict[str, Any] = {"orient": "bottom", "columns": 2, "labelLimit": 300}
    values = [
        {
            "epoch": int(epoch["epoch"]),
            "what": name.replace("_", " "),
            "dash": name,
            "accuracy": value,
        }
        for epoch in epochs
        for name, value in epoch.items()
        if name.endswith("accuracy")
    ]
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_line()
        .encode(
            x=alt.X("epoch:Q", title="epoch").axis(format="d", tickMinStep=1),
            y=alt.Y("accuracy:Q", title="accuracy").axis(format="%"),
            color=alt.Color("what:N", title="").legend(**legend),
            strokeDash=alt.StrokeDash("dash:N", legend=None),
            tooltip=["what:N", "epoch:Q", alt.Tooltip("accuracy:Q", format=".2%")],
        )
    )
    return _spec(chart)
