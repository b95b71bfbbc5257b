"""What the figures of all labs share: flags, colours, the runs that they are drawn from, and how they are written; and
a classifier's confusion matrix."""

import dataclasses
import inspect
import io
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from lab1.engine.config import UsageError, folder_name, require, without_seed
from lab1.engine.files import MISFITS, Run, in_words, read_object, that_fit
from lab1.engine.finished import PLACES

# One colour has one meaning in all labs: those of Okabe & Ito (2008), which colour-blind people can tell apart.
PARTS = {"train": "#8c8c8c", "validation": "#0072b2", "test": "#000000"}
NETWORKS = {"plain": "#d55e00", "residual": "#009e73"}
ALGORITHMS = {"ppo": "#cc79a7", "dqn": "#e69f00", "reinforce": "#56b4e9"}
# Runs that differ in these are of one experiment.
ALIKE = (*PLACES, "precision")


Folder = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]


@dataclasses.dataclass
class FigureConfig:
    """The flags of a script that draws figures. A lab's own ``Config`` inherits them."""

    runs: Folder = None
    """Folder of finished runs (default: the published ones, model/published beside the script)."""
    figures: Folder = None
    """Folder that the figures are written to (default: figures/ beside the script for the published runs; figures/ in
    the folder of the runs for others)."""

    def runs_folder(self) -> Path:
        """The folder of the runs to draw."""
        return self._lab() / "model" / "published" if self.runs is None else self.runs

    def figures_folder(self) -> Path:
        """The folder to write to. Figures of other runs never take the place of the published ones."""
        if self.figures is not None:
            return self.figures
        published = self.runs_folder().resolve() == (self._lab() / "model" / "published").resolve()
        return (self._lab() if published else self.runs_folder()) / "figures"

    def read(self) -> list[Run]:
        """The runs to draw (see ``read_runs``), without those of other labs.

        Raises:
            UsageError: where there is none.
        """
        runs, others = read_runs(self.runs_folder()), {"lab1", "lab2", "lab3"} - {self._lab().name}
        labs = [str(run.get("script")).partition("/")[0] for run in runs]  # a script of one's own is of none
        own = [run for run, lab in zip(runs, labs, strict=True) if lab not in others]
        theirs = " and ".join(sorted(others & set(labs)))
        require(len(own) > 0, f"{self.runs_folder()} holds runs of {theirs} alone; use the plot.py there")
        return own

    def _lab(self) -> Path:
        return Path(inspect.getfile(type(self))).resolve().parent


def write_figures(figures: dict[str, Any], folder: Path) -> None:
    """Write Matplotlib figures as PNG files, each under its name, and print where they are. Flags in a name, as
    ``by_experiment`` adds them, go into the figure's title as well.

    Raises:
        UsageError: where the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--figures {folder} cannot be made: {error.strerror}") from None
    for name, figure in figures.items():
        if flags := name.partition(", ")[2]:
            figure.suptitle(f"{figure.get_suptitle()}\n{flags}")
        path = folder / f"{folder_name(name.replace(', ', '-').replace(' ', '-'))}.png"
        write_png(figure, path)
        print(path)


def write_png(figure: Any, path: Path) -> None:
    """Write a Matplotlib figure as a PNG file of 110 dots an inch and at most 256 colours: half the size or less, and
    no difference that one sees."""
    from PIL import Image

    memory = io.BytesIO()
    figure.savefig(memory, format="png", dpi=110)
    with Image.open(memory) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


LEGEND_WIDTH = 11  # characters of a legend that fit into an inch
LEGEND_HANDLE = 6  # as many characters are as wide as the line or dot before a label, and the gap after it


def counted(number: int, thing: str) -> str:
    """``3 seeds``, ``1 seed``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def legend_below(figure: Any, handles: dict[str, Any], title: str | None = None) -> None:
    """One legend for all panels, below them, where it hides no data: ``handles`` by their labels, in a row or, where
    that would be wider than the figure, in two. The figure's layout is ``constrained``."""
    width = sum(len(label) + LEGEND_HANDLE for label in handles)
    rows = 1 if width <= LEGEND_WIDTH * figure.get_figwidth() else 2
    place = dict(loc="outside lower center", ncols=-(-len(handles) // rows), frameon=False)
    figure.legend(handles.values(), handles.keys(), title=title, **place)


def read_runs(folder: Path) -> list[Run]:
    """The results of every finished run under a folder, by name of the run; a network that is part of a sweep has its
    place in the sweep's figure and is left out, and so are published runs that lie under a folder of others, and dry
    runs where there are true ones.

    A ``results.json`` that cannot be read is passed over with a line on standard error.

    Raises:
        UsageError: where there is none that can be read.
    """
    paths = sorted(Path(folder).rglob("results.json"))
    paths = [path for path in paths if "published" not in path.relative_to(folder).parts]
    require(len(paths) > 0, f"{folder} holds no finished run (no results.json); train one first")
    runs = {}
    for path in paths:
        try:
            run = read_object(path)
            for name, kind in {"script": str, "config": dict, "dataset": str | None}.items():
                fits = name not in run or isinstance(run[name], kind)
                require(fits, f"{path} is of no script of these labs: {name!r} is {in_words(run.get(name))}")
            runs[path.parent] = run
        except (UsageError, FileNotFoundError) as error:
            print(f"passing over a run: {error}", file=sys.stderr)
    require(len(runs) > 0, f"{folder} holds no finished run that can be read")
    # What lies in a run's own folder belongs to a series, which may not be finished.
    parts = {folder for folder in runs if (folder.parent / "config.json").is_file()}
    alone = [run | {"name": folder.name} for folder, run in runs.items() if folder not in parts]
    require(len(alone) > 0, f"{folder} holds parts of unfinished series alone; go on with them, with --resume")
    true = [run for run in alone if not run.get("config", {}).get("dry_run")]
    if 0 < len(true) < len(alone):
        print(f"leaving out dry runs: {len(alone) - len(true)}", file=sys.stderr)
    return true or alone


def draw(figures: Callable[[list[Run]], dict[str, Any]], runs: list[Run]) -> dict[str, Any]:
    """The figures of some runs by name. Runs that ``figures`` cannot draw, as their ``results.json`` is not as it was
    written, are passed over with a line each.

    Raises:
        UsageError: where none is left.
    """
    from matplotlib import pyplot, rcParams

    rcParams["figure.max_open_warning"] = 0  # all of them stay open until they are written

    def alone(run: list[Run]) -> None:
        figures(run)
        pyplot.close("all")

    try:
        return figures(runs)
    except MISFITS:
        fit = that_fit(alone, runs)
    require(len(fit) > 0, "there is no run that can be drawn")
    return figures(fit)


def by_experiment(runs: list[Run], compared: Collection[str] | None = None) -> dict[str, list[Run]]:
    """Runs that differ in nothing but the seed, under the name that they share. Where flags that a name does not tell
    make several experiments of it (see ``experiments``), each has them after its name: ``mlp-128-64, epochs 3``. A
    series is an experiment by itself."""
    groups = defaultdict(list)
    for run in runs:
        groups[run["name"] if "runs" in run else without_seed(run["name"])].append(run)
    return split(groups, compared)


def split(groups: dict[str, list[Run]], compared: Collection[str] | None = None) -> dict[str, list[Run]]:
    """Groups of runs by name, as ``by_experiment`` returns them: those of several experiments apart."""
    found = {}
    for name, same in groups.items():
        for flags, alike in ({"": same} if "runs" in same[0] else experiments(same, compared)).items():
            found[", ".join(filter(None, (name, flags)))] = alike
    return found


def experiments(
    runs: list[Run], compared: Collection[str] | None = None, ignored: Collection[str] = ()
) -> dict[str, list[Run]]:
    """Runs that differ in nothing but the seed, by the flags in which they differ from the others: ``epochs 3``, and
    ``""`` where there is one experiment. Of a command that was given twice the newer run alone counts: it is no second
    seed. A flag that an older run does not know, the place of a run, and its precision tell nothing apart.

    Args:
        compared: the flags that make an experiment another one (default: all). ignored: those that mean nothing here.
    """
    found: list[tuple[dict[str, Any], dict[str, Run]]] = []  # flags and runs of each experiment
    for run in runs:
        known = {flag: value for flag, value in run["config"].items() if flag not in (*ALIKE, *ignored)}
        if run.get("dataset") == "folder":  # whatever lies there
            known["data_dir"] = run["config"].get("data_dir")
        flags = {flag: _without_seed(known[flag]) for flag in known if flag != "seed" and flag in (compared or known)}
        flags["resumed"] = _in_words_before(run)
        for experiment in found:
            if all(experiment[0].get(flag, value) == value for flag, value in flags.items()):
                break
        else:
            found.append(experiment := ({}, {}))
        settings, members = experiment
        settings |= flags
        rest = {flag: value for flag, value in known.items() if flags.get(flag) != value}
        same = json.dumps(rest if "seed" in rest else len(members), sort_keys=True)
        members[same] = max(run, members.get(same, run), key=_number)
    groups = defaultdict(list)
    for settings, members in found:
        others = [other for other, _ in found if other is not settings]
        differ = [f for f in settings if any(f in other and other[f] != settings[f] for other in others)]
        groups[", ".join(filter(None, (_flag_in_words(flag, settings[flag]) for flag in differ)))] += members.values()
    return groups


def _number(run: Run) -> tuple[int, str]:
    """Grows from run to run of a command: ``mlp-seed0``, ``mlp-seed0-2``, ``mlp-seed0-10``."""
    name = run.get("name", "")
    return len(name), name


def _in_words_before(run: Run) -> str | None:
    """``after epochs 2`` of a run that was resumed with other flags; None of any other."""
    earlier = [", ".join(_flag_in_words(*flag) for flag in part["flags"].items()) for part in run.get("resumed", ())]
    return f"after {', then '.join(earlier)}" if earlier else None


def _without_seed(value: Any) -> Any:
    """A flag's value; of the name of a run, what it shares with those of other seeds."""
    return without_seed(value) if isinstance(value, str) else value


def _flag_in_words(flag: str, value: Any) -> str:
    """``learning rate 0.1``, ``augment``, or nothing for a flag that is not set."""
    if value is None or value is False:
        return ""
    words = [flag.replace("_", " "), *(value if isinstance(value, list) else () if value is True else (value,))]
    return " ".join(map(str, words))


def plain(name: str) -> str:
    """A name that people gave, such as a folder's, as Matplotlib writes it: dollars that begin no formula, and a
    question mark for what is no character."""
    return name.encode(errors="replace").decode().replace("$", r"\$")


def confusion_figure(confusion: np.ndarray, classes: list[str]):
    """A Matplotlib figure of a confusion matrix ``[true class, predicted class]`` of counts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    classes, share = list(map(plain, classes)), confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 20:
        axes.set_xticks(range(len(classes)), classes, rotation=45 if max(map(len, classes)) > 3 else 0)
        axes.set_yticks(range(len(classes)), classes)
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                color = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, int(count), ha="center", va="center", color=color, fontsize=8)
    axes.set(xlabel="predicted class", ylabel="true class", title="Test set, number of examples")
    return figure
