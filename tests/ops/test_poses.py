import jax
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ylosia_jax.data.skeletons import COCO_PERSON, mirror_of
from ylosia_jax.ops import poses

SIGMAS = np.array(COCO_PERSON.sigmas, np.float32)


def test_decode_inverts_encode():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 640, (2, 7, 17, 2)).astype(np.float32)
    anchors, strides = rng.uniform(0, 640, (7, 2)).astype(np.float32), np.repeat([8.0, 32.0], [4, 3]).astype(np.float32)
    coded = poses.encode_points(points, anchors, strides)
    np.testing.assert_allclose(coded[1, 2, 3], (points[1, 2, 3] - anchors[2]) / 8, rtol=1e-5)
    np.testing.assert_allclose(poses.decode_points(coded, anchors, strides), points, rtol=1e-5, atol=1e-3)


def test_similarity_equals_pycocotools():
    rng = np.random.default_rng(1)
    truth = np.concatenate([rng.uniform(0, 200, (6, 17, 2)), rng.integers(0, 3, (6, 17, 1))], axis=-1)
    found = truth[..., :2] + rng.normal(0, 8, (6, 17, 2))
    area = rng.uniform(500, 9000, 6)
    gt, dt = COCO(), COCO()
    categories, images = [{"id": 1, "name": "person"}], [{"id": i} for i in range(6)]
    kept = {"category_id": 1, "iscrowd": 0, "bbox": [0, 0, 200, 200]}
    gt.dataset = {
        "images": images,
        "categories": categories,
        "annotations": [
            {
                "id": i + 1,
                "image_id": i,
                "area": area[i],
                "keypoints": truth[i].ravel().tolist(),
                "num_keypoints": int((truth[i, :, 2] > 0).sum()),
                **kept,
            }
            for i in range(6)
        ],
    }
    rows = [np.column_stack([found[i], np.ones(17)]).ravel().tolist() for i in range(6)]
    dt.dataset = {
        "images": images,
        "categories": categories,
        "annotations": [
            {"id": i + 1, "image_id": i, "area": area[i], "keypoints": rows[i], "score": 1.0, **kept} for i in range(6)
        ],
    }
    gt.createIndex()
    dt.createIndex()
    evaluation = COCOeval(gt, dt, "keypoints")
    evaluation._prepare()
    expected = [evaluation.computeOks(i, 1)[0, 0] for i in range(6)]
    errors = poses.point_errors(
        found.astype(np.float32), truth[..., :2].astype(np.float32), area.astype(np.float32), SIGMAS
    )
    np.testing.assert_allclose(
        poses.similarity(errors, (truth[..., 2] > 0).astype(np.float32)), expected, rtol=1e-4, atol=1e-6
    )


def test_nothing_labelled_has_no_similarity_and_finite_gradients():
    def total(points):
        errors = poses.point_errors(points, np.zeros((1, 17, 2), np.float32), np.zeros(1, np.float32), SIGMAS)
        return poses.similarity(errors, np.zeros((1, 17), np.float32)).sum()

    value, gradient = jax.value_and_grad(total)(np.zeros((1, 17, 2), np.float32))
    assert value == 0
    assert np.isfinite(gradient).all()


def test_mirror_by_names():
    assert mirror_of(COCO_PERSON.names) == COCO_PERSON.mirror
    assert mirror_of(("snout", "leftear", "rightear", "tailbase")) == (0, 2, 1, 3)
    assert mirror_of(("wing_left", "beak", "wing_right", "left_only")) == (2, 1, 0, 3)
    assert mirror_of(("front_left_paw", "front_right_paw", "nose")) == (1, 0, 2)
    assert mirror_of(("LEye", "REye", "eyeL", "eyeR", "hip.L", "hip.R")) == (1, 0, 3, 2, 5, 4)
    assert mirror_of(("frontLeftPaw", "frontRightPaw", "L knee", "R knee")) == (1, 0, 3, 2)
    # Two points of one name but for capitals, and three that cannot be two pairs.
    assert mirror_of(("a", "A", "left_a", "right_a")) == (0, 1, 3, 2)
    assert mirror_of(("left_left", "right_left", "right_right")) == (1, 0, 2)
    # Words that only look like it.
    assert mirror_of(("bright", "tail", "rail", "lip", "rip", "left")) == (0, 1, 2, 3, 4, 5)
