"""What a run tells while it runs: metrics.csv, TensorBoard, a progress bar."""

import csv
import os
import sys
from pathlib import Path
from types import TracebackType

from tensorboardX import SummaryWriter
from tqdm import tqdm

FIRST = ("step", "epoch", "loss")
LAST = ("lr", "images_per_second", "host_wait", "compiles")


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        # A run that was killed while it wrote leaves half a line, which has too few columns.
        return [row for row in csv.DictReader(file) if None not in row.values()]


class Log:
    """Writes a row a log step to `metrics.csv` and `tensorboard/`, and moves the bar where there is a terminal.

    A resumed run drops the rows after the checkpoint that it starts from: it will write them again.

    Args:
      folder: the run's.
      start: step that the run starts from.
      steps: of the whole run.
      active: False writes and prints nothing, for every host but the first.
    """

    def __init__(self, folder: Path, start: int, steps: int, *, active: bool = True) -> None:
        self._active = active
        self._path = folder / "metrics.csv"
        self._rows = [row for row in read_rows(self._path) if int(row["step"]) <= start]
        self._columns: list[str] = list(self._rows[0]) if self._rows else []
        if self._columns and active:
            self._rewrite()
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
        if not self._columns:
            middle = [name for name in row if name not in FIRST + LAST]
            self._columns = [*FIRST, *middle, *LAST]
            self._rewrite()
        with self._path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([f"{row[name]:.8g}" for name in self._columns])
        for name in self._columns[1:]:
            self._board.add_scalar(name, row[name], step)
        self._bar.update(step - self._bar.n)
        self._bar.set_postfix_str(
            f"loss {row['loss']:.3f}, {row['images_per_second']:.0f} images/s, host wait {row['host_wait']:.0%}"
        )

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """Shows an evaluation's numbers, in TensorBoard and as a line."""
        for name, value in scores.items():
            self._board.add_scalar(f"evaluation/{name}", value, step)
        self.say(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))

    def say(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        if self._active:
            self._bar.write(line, file=sys.stderr)

    def _rewrite(self) -> None:
        temporary = self._path.with_suffix(".csv.tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows)
        os.replace(temporary, self._path)
