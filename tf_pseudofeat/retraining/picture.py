"""Plots of a report."""

import io

__all__ = ["draw_report"]


def draw_report(report):
    """Plots recall and precision of each class before and after, and the loss.

    Args:
        report: `RetrainingReport`.

    Returns:
        figure: a `matplotlib.figure.Figure` that renders in a notebook.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    figure = _new_figure(figsize=(13, 4), layout="constrained")
    recall, precision, loss = figure.subplots(1, 3, width_ratios=[3, 3, 1])
    verdict = "" if report.kept else " (rolled back)"
    for axes, name in ((recall, "recall"), (precision, "precision")):
        _draw_bars(axes, report, name)
        axes.set_title(f"{name} on {report.scored_on}{verdict}", loc="left")
    recall.set_xlabel("class (* minority), and its real training examples")
    precision.set_xlabel("class, and its true share of these data, percent")
    recall.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    epochs = (report.recipe.epochs or 0) / max(1, len(report.loss))
    ends = [epochs * (i + 1) for i in range(len(report.loss))]
    loss.plot(ends, report.loss, color="tab:blue", marker=".")
    loss.margins(y=0.1)
    loss.set_ylim(bottom=0)
    loss.set(xlabel="epoch of the head", title="training loss")
    return figure


def _draw_bars(axes, report, name):
    classes = range(len(report.real))
    for offset, when, color in ((-0.2, "before", "0.7"), (0.2, "after", "tab:blue")):
        values = [100 * (value or 0) for value in getattr(report, when)[name]]
        places = [place + offset for place in classes]
        axes.bar(places, values, width=0.38, color=color, label=when)
    below = [f"{count:,}" for count in report.real]
    if name == "precision":
        below = [f"{100 * (s or 0):.1f}" for s in report.before["true_share"]]
    labels = [report.label(place) for place in classes]
    # As many characters as fit beside each other; turned, both are one line.
    long = max(map(len, labels + below)) * len(labels) > 50
    names = [
        ("  " if long else "\n").join(pair) for pair in zip(labels, below, strict=True)
    ]
    axes.set_xticks(list(classes), names, rotation=90 if long else 0)
    axes.set(ylim=(0, 100), ylabel=f"{name}, percent")


def _new_figure(**options):
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "`plot` needs matplotlib: pip install 'tf-pseudofeat[examples]'."
        ) from error

    class Picture(Figure):
        """A figure that renders in a notebook without pyplot."""

        def _repr_png_(self):
            file = io.BytesIO()
            self.savefig(file, format="png", dpi=96)
            return file.getvalue()

    return Picture(**options)
