from parity.record import record
from parity.table import main


def test_the_table_shows_the_worst_of_each_quantity(tmp_path, monkeypatch):
    measured, page = tmp_path / "measured.csv", tmp_path / "parity.md"
    monkeypatch.setenv("YLOSIA_PARITY", str(measured))
    record("b (small)", "forward", 2e-6, 1e-4)
    record("b (small)", "forward", 3.14e-5, 1e-4)
    record("b (small)", "forward", 1e-6, 1e-4)
    record("a", "20 steps", 1e-3, 1e-2)
    record("nms", "kept", 0, 0)
    record("c", "spread", 0.5, float("inf"))
    record("c", "spread", 0.7, float("inf"))
    record("d", "forward", 0.03, 0.032)
    main(str(measured), str(page))
    tables = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert tables[2:5] == [
        "| a |  |  |  |  |  |  | 1e-03 (1e-02) |",
        "| b (small) | 3.1e-05 (1e-04) |  |  |  |  |  |  |",
        "| d | 3e-02 (3.2e-02) |  |  |  |  |  |  |",
    ]
    assert tables[-2:] == ["| c | spread | 7e-01 |", "| nms | kept | 0 (0) |"]
