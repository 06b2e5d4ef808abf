import numpy as np
import pytest

from ylosia_jax.evaluate import Record, _pack, _unpack
from ylosia_jax.metrics.classification import Ranked, classification_metrics, order_of, rank
from ylosia_jax.metrics.instances import ImageTruth


def test_scores_by_hand():
    found = [Ranked(0, 0), Ranked(0, 4), Ranked(1, 5), Ranked(3, 0)]
    assert classification_metrics(found, "abcd") == {
        "top1": 0.5,
        "top5": 0.75,
        "per_class": {"a": 0.5, "b": 0.0, "c": None, "d": 1.0},
    }


def test_nothing_to_score():
    assert classification_metrics([], "ab") == {"top1": None, "top5": None, "per_class": {"a": None, "b": None}}


@pytest.mark.parametrize("classes", [1, 3, 5, 12])
def test_scores_equal_a_count(classes):
    """Of fewer than five classes the truth is always among the best five."""
    rng = np.random.default_rng(classes)
    scores, labels = rng.random((200, classes)).astype(np.float32), rng.integers(0, classes, 200)
    found = classification_metrics(list(map(rank, scores, labels.tolist())), list(map(str, range(classes))))
    assert found["top1"] == pytest.approx(np.mean(scores.argmax(axis=1) == labels), abs=1e-12)
    better = (scores > scores[np.arange(200), labels][:, None]).sum(axis=1)
    assert found["top5"] == pytest.approx(np.mean(better < 5), abs=1e-12)
    assert classes > 5 or found["top5"] == 1
    mine = scores[labels == 0].argmax(axis=1) == 0
    assert found["per_class"]["0"] == pytest.approx(mine.mean(), abs=1e-12)


def test_of_equal_scores_the_first_class_stands_first():
    assert order_of(np.array([0.1, 0.4, 0.1, 0.4])).tolist() == [1, 3, 0, 2]
    assert [rank(np.full(4, 0.25), label).place for label in range(4)] == [0, 1, 2, 3]


def test_what_is_no_number_is_no_answer():
    assert order_of(np.array([np.nan, 0.1, np.nan, 0.0])).tolist() == [1, 3, 0, 2]
    assert rank(np.array([np.nan, 0.1]), 0) == Ranked(0, 1)


def test_a_rank_travels_between_hosts():
    nothing = np.zeros(0)
    truth = ImageTruth("a.png", 4, 4, np.zeros((0, 4), np.float32), nothing.astype(int), nothing.astype(bool), nothing)
    record = _unpack(_pack(Record("a.png", truth, ranked=Ranked(2, 1))))
    assert record.ranked == Ranked(2, 1)
