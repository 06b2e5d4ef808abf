"""What a run tells while it runs: metrics.csv, TensorBoard, a progress bar."""

import csv
import io
import sys
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from ylosia_jax.files import write_atomically

FIRST = ("step", "epoch", "loss")
LAST = ("lr", "images_per_second", "host_wait", "compiles")


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        # A run that was killed while it wrote leaves half a line, which has too few columns.
        return [row for row in csv.DictReader(file) if None not in row.values()]


class _Table:
    """A CSV file that grows a row at a time; rows past a resumed run's checkpoint are dropped."""

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        rows = [row for row in read_rows(path) if int(row["step"]) <= start]
        self._columns = list(rows[0]) if rows else []
        if path.exists():
            self._rewrite(rows)

    def write(self, row: dict[str, float], columns: list[str]) -> None:
        """Adds a row; the first one decides on the columns."""
        if not self._columns:
            self._columns = columns
            self._rewrite([])
        with self._path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([f"{row[name]:.8g}" for name in self._columns])

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self._path, text.getvalue() if self._columns else "")


class Log:
    """Writes a row a log step to `metrics.csv` and `tensorboard/`, and moves the bar where there is a terminal.

    A resumed run drops the rows after the checkpoint that it starts from: it will write them again. Evaluations go to
    `evaluations.csv`.

    Args:
      folder: the run's.
      start: step that the run starts from.
      steps: of the whole run.
      active: False writes and prints nothing, for every host but the first.
    """

    def __init__(self, folder: Path, start: int, steps: int, *, active: bool = True) -> None:
        self._active = active
        if active:
            self._metrics = _Table(folder / "metrics.csv", start)
            self._evaluations = _Table(folder / "evaluations.csv", start)
        # Not above: it imports torch where that is installed, and takes seconds that other commands need not wait for.
        from tensorboardX import SummaryWriter

        board = str(folder / "tensorboard")
        self._board = SummaryWriter(board, purge_step=start + 1 if start else None, write_to_disk=active)
        hidden = not (active and sys.stderr.isatty())
        self._bar = tqdm(total=steps, initial=start, unit="step", disable=hidden, dynamic_ncols=True)

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._board.close()

    def write(self, step: int, row: dict[str, float]) -> None:
        """Adds a row; its names are the same in every call of a run."""
        if not self._active:
            return
        row = {"step": step, **row}
        columns = [*FIRST, *(name for name in row if name not in FIRST + LAST), *LAST]
        self._metrics.write(row, columns)
        for name in columns[1:]:
            self._board.add_scalar(name, row[name], step)
        self._bar.update(step - self._bar.n)
        self._bar.set_postfix_str(
            f"loss {row['loss']:.3f}, {row['images_per_second']:.0f} images/s, host wait {row['host_wait']:.0%}"
        )

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """Keeps an evaluation's numbers, and shows them as a line."""
        if not self._active:
            return
        self._evaluations.write({"step": step, **scores}, ["step", *scores])
        for name, value in scores.items():
            self._board.add_scalar(f"evaluation/{name}", value, step)
        self.say(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))

    def say(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        if self._active:
            self._bar.write(line, file=sys.stderr)
