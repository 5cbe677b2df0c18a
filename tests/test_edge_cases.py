"""What the extremes give: answers worked out by hand, the same for every backend."""

import math

import pytest
import torch

from simota_triton import SimOTAAssigner, SimOTAConfig
from simota_triton.backends import BACKENDS
from simota_triton.verification.judge import judge
from simota_triton.verification.scenes import make_scene
from tests.support.interpreter import QUICK

NAN, INF = float("nan"), float("inf")
UNREADABLE = (NAN, INF, -INF, 1e300)
"""Logits of float64 that are not finite, the last one as float32."""
PRESETS = SimOTAConfig.presets()

pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def grid(columns, rows=1, stride=8.0):
    """Priors at (s, s), (2 s, s), ...: [P, 4]."""
    y, x = torch.meshgrid(
        torch.arange(1, rows + 1) * stride, torch.arange(1, columns + 1) * stride, indexing="ij"
    )
    return torch.stack([x, y, torch.full_like(x, stride), torch.full_like(x, stride)], -1).reshape(-1, 4)


def run(preset, backend, priors, pred, gts, labels=None, cls=None, obj=None, num_classes=2, **options):
    """The answer to one image; predictions [P, 4], gts a list of boxes, logits 0 unless given."""
    assigner = SimOTAAssigner(preset, backend=backend)
    pred = torch.as_tensor(pred, dtype=torch.float32).expand(len(priors), 4)
    cls = torch.zeros(len(priors), num_classes) if cls is None else cls
    if assigner.config.score == "joint":
        options["obj_logits"] = (torch.zeros(len(priors), 1) if obj is None else obj)[None]
    boxes = torch.tensor(gts, dtype=torch.float32).view(-1, 4)
    labels = torch.zeros(len(boxes), dtype=torch.int64) if labels is None else torch.tensor(labels)
    return assigner(pred[None], cls[None], priors, [boxes], [labels], **options)


def assert_background(result, num_classes=2):
    assert bool((result.gt_index == -1).all())
    assert bool((result.labels == num_classes).all())
    assert bool((result.matched_iou == 0).all())
    assert bool((result.claims == 0).all())
    assert bool((result.gt_boxes == 0).all())
    assert not bool(result.fg_mask.any())
    assert result.num_pos.tolist() == [0] * len(result.gt_index)


# nothing to assign


@pytest.mark.parametrize("preset", PRESETS)
def test_no_gts_give_background(preset, backend):
    result = run(preset, backend, grid(4), [0.0, 0.0, 8.0, 8.0], [])
    assert_background(result)
    assert result.dynamic_k.tolist() == []


@pytest.mark.parametrize("preset", PRESETS)
def test_padding_alone_gives_background(preset, backend):
    assigner, priors = SimOTAAssigner(preset, backend=backend), grid(4)
    objectness = {"obj_logits": torch.zeros(2, 4, 1)} if assigner.config.score == "joint" else {}
    boxes, labels = torch.full((2, 3, 4), NAN), torch.full((2, 3), -7)
    mask = torch.zeros(2, 3, dtype=torch.bool)
    result = assigner(
        torch.zeros(2, 4, 4), torch.zeros(2, 4, 2), priors, boxes, labels, gt_mask=mask, **objectness
    )
    assert_background(result)
    assert result.dynamic_k.tolist() == [[0] * 3] * 2
    empty = assigner(
        torch.zeros(2, 4, 4), torch.zeros(2, 4, 2), priors, boxes[:, :0], labels[:, :0], **objectness
    )
    assert_background(empty)
    assert empty.dynamic_k.shape == (2, 0)


def test_a_gt_whose_area_float32_does_not_hold_is_refused_or_takes_no_part(backend):
    priors, wide = grid(4), [-5e19, -5e19, 5e19, 5e19]
    gts = [[0.0, 0.0, 40.0, 16.0], wide]
    with pytest.raises(ValueError, match="gt_boxes: expected finite boxes of finite area"):
        run("rtmdet", backend, priors, gts[0], gts)
    args = priors, torch.tensor(gts)[None], torch.zeros(1, 2, dtype=torch.int64)
    result = SimOTAAssigner("rtmdet", backend=backend, validate=False)(
        args[1][:, :1].expand(1, 4, 4), torch.zeros(1, 4, 2), *args
    )
    assert result.dynamic_k.tolist()[0][1] == 0
    assert result.gt_index.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("preset", PRESETS)
def test_no_priors(preset, backend):
    result = run(preset, backend, torch.zeros(0, 4), torch.zeros(0, 4), [[0.0, 0.0, 8.0, 8.0]])
    assert result.gt_index.shape == result.labels.shape == (1, 0)
    assert result.gt_boxes.shape == (1, 0, 4)
    assert result.dynamic_k.tolist() == [1]
    assert result.num_pos.tolist() == [0]


@pytest.mark.parametrize("preset", PRESETS)
def test_no_images(preset, backend):
    assigner = SimOTAAssigner(preset, backend=backend)
    objectness = {"obj_logits": torch.zeros(0, 4, 1)} if assigner.config.score == "joint" else {}
    for gts in (([], []), (torch.zeros(0, 3, 4), torch.zeros(0, 3).long())):
        result = assigner(torch.zeros(0, 4, 4), torch.zeros(0, 4, 2), grid(4), *gts, **objectness)
        assert result.gt_index.shape == (0, 4)
        assert result.num_pos.tolist() == []
    packed = assigner(
        torch.zeros(0, 4, 4),
        torch.zeros(0, 4, 2),
        grid(4),
        torch.zeros(0, 4),
        torch.zeros(0).long(),
        gt_offsets=torch.tensor([0]),
        **objectness,
    )
    assert packed.dynamic_k.tolist() == []


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "seed"])
def test_a_gt_far_from_every_prior_gets_none(preset, backend):
    result = run(preset, backend, grid(4), [0.0, 0.0, 8.0, 8.0], [[500.0, 500.0, 520.0, 520.0]])
    assert_background(result)
    assert result.dynamic_k.tolist() == [1]


def test_without_a_candidate_region_even_a_far_gt_gets_its_nearest_prior(backend):
    result = run("seed", backend, grid(4), [0.0, 0.0, 8.0, 8.0], [[200.0, 200.0, 220.0, 220.0]])
    assert result.gt_index.tolist() == [[-1, -1, -1, 0]]
    assert result.matched_iou.tolist() == [[0.0] * 4]


def test_a_gt_between_the_priors_gets_none_and_changes_nothing_for_the_other(backend):
    small, large = [9.0, 1.0, 15.0, 7.0], [4.0, 4.0, 20.0, 12.0]
    result = run("rtmdet", backend, grid(4), large, [small, large], num_classes=3, labels=[2, 1])
    assert result.gt_index.tolist() == [[1, 1, -1, -1]]
    assert result.labels.tolist() == [[1, 1, 3, 3]]
    assert result.dynamic_k.tolist() == [1, 2]


# unreadable predictions


@pytest.mark.parametrize("preset", PRESETS)
def test_an_unreadable_prior_is_left_out_and_nothing_else_changes(preset, backend):
    assigner = SimOTAAssigner(preset, backend=backend)
    quick = ((7, "random"), (7, "crowded"), (7, "trained"))
    for seed, family in quick if backend in QUICK else ((102, "random"),):
        scene = make_scene(seed, family)
        generator = torch.Generator().manual_seed(0)
        broken = torch.rand(scene.pred_boxes.shape[:2], generator=generator) < 0.2
        scene.candidate_mask = None
        clean = scene.call(assigner, candidate_mask=~broken)
        for b, p in broken.nonzero().tolist():
            what = (b + p) % 6
            if what < 3:
                scene.pred_boxes[b, p, p % 4] = (NAN, INF, -INF)[what]
            elif what == 3:
                # finite, but its area is not
                scene.pred_boxes[b, p] = torch.tensor([-1e25, -1e25, 1e25, 1e25])
            elif what == 4 or assigner.config.score != "joint":
                scene.cls_logits[b, p] = (NAN, INF, -INF)[p % 3]
            else:
                scene.obj_logits[b, p] = (NAN, INF, -INF)[p % 3]
        result = scene.call(assigner)
        for name in ("gt_index", "labels", "matched_iou", "claims", "dynamic_k"):
            assert torch.equal(getattr(clean, name), getattr(result, name)), (name, family)
        assert bool(result.fg_mask.any())
        assert not bool(result.fg_mask[broken].any())


@pytest.mark.parametrize("value", UNREADABLE)
def test_one_unreadable_class_logit_ends_a_prior_where_all_classes_count(backend, value):
    box, cls = [0.0, 0.0, 20.0, 16.0], torch.zeros(2, 3, dtype=torch.float64)
    cls[0, 2] = value
    assert run("rtmdet", backend, grid(2), box, [box], labels=[1], cls=cls).gt_index.tolist() == [[-1, 0]]


@pytest.mark.parametrize("value", UNREADABLE)
def test_where_the_gts_class_counts_alone_an_unreadable_logit_ends_only_its_pairs(backend, value):
    box, cls = [0.0, 0.0, 20.0, 16.0], torch.zeros(2, 3, dtype=torch.float64)
    cls[0, 2] = value
    result = run("rtmdet_mmyolo", backend, grid(2), box, [box, box], labels=[1, 2], cls=cls)
    assert result.dynamic_k.tolist() == [2, 1]  # the second gt has no IoU with prior 0 either
    assert result.gt_index.tolist() == [[0, 0]]
    assert result.claims.tolist() == [[1, 2]]


@pytest.mark.parametrize("preset", PRESETS)
def test_predictions_that_are_all_unreadable_give_background(preset, backend):
    assert_background(run(preset, backend, grid(4), [NAN, 0.0, 8.0, 8.0], [[0.0, 0.0, 40.0, 16.0]]))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_mask_without_candidates_gives_background(preset, backend):
    nobody = torch.zeros(4, dtype=torch.bool)
    assert_background(
        run(preset, backend, grid(4), [0.0, 0.0, 40.0, 16.0], [[0.0, 0.0, 40.0, 16.0]], candidate_mask=nobody)
    )


# degenerate boxes


def test_inverted_and_flat_predictions_overlap_nothing(backend):
    gt = [0.0, 0.0, 48.0, 16.0]
    pred = [[48.0, 16.0, 0.0, 0.0], [10.0, 0.0, 10.0, 16.0], [5.0, 5.0, 5.0, 5.0], [48.0, 0.0, 0.0, 16.0], gt]
    result = run("rtmdet", backend, grid(5), pred, [gt])
    assert result.gt_index.tolist() == [[-1, -1, -1, -1, 0]]
    assert result.matched_iou.tolist() == [[0.0] * 4 + [1.0]]
    assert result.dynamic_k.tolist() == [1]


@pytest.mark.parametrize("gt", [[24.0, 0.0, 24.0, 16.0], [24.0, 8.0, 24.0, 8.0], [40.0, 16.0, 8.0, 0.0]])
def test_flat_and_inverted_gts_hold_no_prior_but_keep_their_centre_square(backend, gt):
    assert_background(run("rtmdet", backend, grid(5), [0.0, 0.0, 48.0, 16.0], [gt]))
    # centre (24, 8): 12 < x < 36
    by_center = run("yolox_main", backend, grid(5), [0.0, 0.0, 48.0, 16.0], [gt])
    assert by_center.gt_index.tolist() == [[-1, 0, -1, -1, -1]]  # equal costs: the first of 16, 24, 32
    assert by_center.matched_iou.tolist() == [[0.0] * 5]


def test_a_gt_partly_outside_the_image_is_an_ordinary_gt(backend):
    gt = [-40.0, -20.0, 20.0, 12.0]
    result = run("rtmdet", backend, grid(4), gt, [gt])
    assert result.gt_index.tolist() == [[0, 0, -1, -1]]
    assert result.matched_iou.tolist() == [[1.0, 1.0, 0.0, 0.0]]


# exact sums


@pytest.mark.parametrize(
    ("preset", "k"),
    [("rtmdet", 13), ("seed", 13), ("yolox", 10), ("super_gradients_fast", 11), ("picodet", 10)],
)
def test_perfect_predictions_give_the_largest_k(preset, k, backend):
    for box in ([3.0, 1.0, 163.0, 47.0], [1 / 3, 0.1, 163.7, 40.3]):
        result = run(preset, backend, grid(20, 4), box, [box])
        assert result.dynamic_k.tolist() == [k]
        assert int(result.num_pos) == k
        assert result.matched_iou[result.fg_mask].tolist() == [1.0] * k


def test_a_sum_just_below_an_integer_is_floored(backend):
    gt = [0.0, 0.0, 160.0, 32.0]
    short = [0.0, 0.0, 159.99, 32.0]  # IoU 0.99994
    result = run("rtmdet", backend, grid(19, 3), [gt] * 12 + [short] + [[0.0, 0.0, 1.0, 1.0]] * 44, [gt])
    assert result.dynamic_k.tolist() == [12]


# one class, extreme logits, large coordinates


@pytest.mark.parametrize("preset", PRESETS)
def test_one_class(preset, backend):
    gt = [0.0, 0.0, 20.0, 16.0]
    result = run(preset, backend, grid(4), gt, [gt], cls=torch.tensor([[-3.0], [2.0], [0.0], [5.0]]))
    # inside the box: x = 8 and 16; within 2.5 strides of the centre also 24; anywhere also 32
    count = {
        "seed": 4,
        "rtmdet": 2,
        "rtmdet_mmyolo": 2,
        "libre_rtmdet": 2,
        "nanodet": 2,
        "yolox_main": 2,
    }.get(preset, 3)
    assert result.labels.tolist() == [[0] * count + [1] * (4 - count)]
    assert result.matched_iou.tolist() == [[1.0] * count + [0.0] * (4 - count)]


@pytest.mark.parametrize("preset", ["yolox", "mmdet_simota", "super_gradients", "picodet_libre"])
def test_a_saturated_class_decides_among_equals(preset, backend):
    gt = [0.0, 0.0, 36.0, 16.0]
    pred = [-36.0, 0.0, 36.0, 16.0]  # IoU 1/2 everywhere: k = 2 of 4
    cls = torch.tensor([[-50.0, 50.0], [50.0, -50.0], [50.0, 50.0], [50.0, -50.0]])
    result = run(preset, backend, grid(4), pred, [gt], cls=cls, obj=torch.full((4, 1), 50.0))
    assert result.gt_index.tolist() == [[-1, 0, -1, 0]]


@pytest.mark.parametrize("preset", PRESETS)
def test_extreme_logits_stay_finite(preset, backend):
    gt = [0.0, 0.0, 32.0, 16.0]
    for sign in (-50.0, 50.0, -1e4, 1e4, -3e38, 3e38):
        result = run(
            preset, backend, grid(3), gt, [gt], cls=torch.full((3, 2), sign), obj=torch.full((3, 1), -sign)
        )
        assert result.gt_index.tolist() == [[0, 0, 0]], sign
        assert result.dynamic_k.tolist() == [3]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_million_pixels(preset, backend):
    assigner, shift = SimOTAAssigner(preset, backend=backend), 2.0**20
    gt = torch.tensor([[0.0, 0.0, 36.0, 16.0], [16.0, 0.0, 44.0, 24.0]])
    priors, pred = grid(4), gt[[0, 1, 0, 1]]
    objectness = {"obj_logits": torch.zeros(1, 4, 1)} if assigner.config.score == "joint" else {}
    near = assigner(pred[None], torch.zeros(1, 4, 2), priors, [gt], [torch.tensor([0, 1])], **objectness)
    far_priors = priors + torch.tensor([shift, shift, 0.0, 0.0])
    far = assigner(
        pred[None] + shift,
        torch.zeros(1, 4, 2),
        far_priors,
        [gt + shift],
        [torch.tensor([0, 1])],
        **objectness,
    )
    for name in ("gt_index", "matched_iou", "dynamic_k", "claims"):
        assert torch.equal(getattr(near, name), getattr(far, name)), name
    assert int(near.num_pos) > 1


def test_the_centre_prior_beyond_the_range_of_float32_keeps_its_pairs(backend):
    gt = [0.0, 0.0, 2000.0, 16.0]  # centre at 1000: the prior at 8 is 124 strides away, 10 ** 121
    priors = torch.tensor([[8.0, 8.0, 8.0, 8.0], [16.0, 8.0, 8.0, 8.0], [3000.0, 8.0, 8.0, 8.0]])
    result = run("rtmdet", backend, priors, gt, [gt])
    assert result.gt_index.tolist() == [[0, 0, -1]]  # k = 2, both cost 3e38, and neither is "no candidate"


# ties


def test_identical_priors_go_by_their_index(backend):
    gt = [0.0, 0.0, 64.0, 64.0]
    pred = [0.0, 0.0, 64.0, 192.0]  # IoU 1/3, so that 10 give k = 3
    priors = torch.tensor([[32.0, 32.0, 8.0, 8.0]]).expand(40, 4)
    for preset in ("rtmdet", "yolox", "picodet"):
        result = run(preset, backend, priors, pred, [gt])
        k = int(result.dynamic_k)
        assert k == (4 if preset == "rtmdet" else 3)
        assert result.gt_index.tolist() == [[0] * k + [-1] * (40 - k)]


@pytest.mark.parametrize("preset", PRESETS)
def test_identical_gts_share_by_the_lowest_index(preset, backend):
    gt = [0.0, 0.0, 32.0, 16.0]
    result = run(preset, backend, grid(3), gt, [gt, gt, gt], labels=[1, 1, 1])
    assert result.gt_index.tolist() == [[0, 0, 0]]
    assert result.claims.tolist() == [[3] * 3]
    assert result.dynamic_k.tolist() == [3, 3, 3]


# padding and non-candidates: where mmyolo differs


def test_a_padded_gt_never_wins_a_conflict(backend):
    """Mmyolo's padding, zero boxes, can win conflicts at the origin: an image depends on its batch."""
    gts = torch.tensor([[0.0, 0.0, 20.0, 16.0], [0.0, 0.0, 20.0, 16.0], [0.0, 0.0, 0.0, 0.0]])[None]
    pred = torch.tensor([[[100.0, 100.0, 108.0, 108.0]] * 2])  # IoU 0 with all
    priors = torch.tensor([[2.0, 2.0, 8.0, 8.0], [90.0, 90.0, 8.0, 8.0]])
    assigner = SimOTAAssigner("rtmdet_mmyolo", backend=backend)
    args = (pred, torch.zeros(1, 2, 2), priors)
    padded = assigner(*args, gts, torch.tensor([[1, 1, 0]]), gt_mask=torch.tensor([[True, True, False]]))
    assert padded.gt_index.tolist() == [[0, -1]]
    assert padded.claims.tolist() == [[2, 0]]
    assert padded.labels.tolist() == [[1, 2]]
    assert padded.dynamic_k.tolist() == [[1, 1, 0]]
    alone = assigner(*args, gts[:, :2], torch.tensor([[1, 1]]))
    assert alone.gt_index.tolist() == padded.gt_index.tolist()


def test_a_prior_that_is_no_candidate_is_never_assigned(backend):
    """Mmyolo gives such priors a cost of 1e8: a gt with more k than candidates takes priors far outside."""
    gt = [0.0, 0.0, 12.0, 12.0]
    result = run("rtmdet_mmyolo", backend, grid(6), gt, [gt])
    assert result.dynamic_k.tolist() == [6]  # the IoUs of all priors count
    assert result.gt_index.tolist() == [[0, -1, -1, -1, -1, -1]]  # but only the first lies inside


def test_k_counts_only_what_a_gt_may_take_elsewhere(backend):
    gt = [0.0, 0.0, 12.0, 12.0]
    result = run("rtmdet", backend, grid(6), gt, [gt])
    assert result.dynamic_k.tolist() == [1]
    # the second gt makes all six candidates
    result = run("rtmdet", backend, grid(6), gt, [gt, [0.0, 0.0, 52.0, 12.0]])
    assert result.dynamic_k.tolist() == [6, 1]  # IoU with the second: 6 * 12 / 52
    own = run(SimOTAConfig.rtmdet(own_pairs_only=True), backend, grid(6), gt, [gt, [0.0, 0.0, 52.0, 12.0]])
    assert own.dynamic_k.tolist() == [1, 1]


# float32 and the answer by hand, through all steps


def test_a_small_image_worked_out_by_hand(backend):
    """RTMDet, two gts, three priors; one class, logits 0: cls = log 2 * (iou - 1/2)^2."""
    priors = torch.tensor([[8.0, 8.0, 8.0, 8.0], [16.0, 8.0, 8.0, 8.0], [24.0, 8.0, 8.0, 8.0]])
    first, second = [0.0, 0.0, 20.0, 16.0], [10.0, 0.0, 30.0, 16.0]
    pred = [[0.0, 0.0, 20.0, 16.0], [5.0, 0.0, 25.0, 16.0], [10.0, 0.0, 30.0, 16.0]]
    # IoUs: first 1, 15/25, 10/30; second 10/30, 15/25, 1: k = floor(1.93) = 1 each
    # centres at x = 10 and 20: the first takes prior 0, the second prior 2
    result = run("rtmdet", backend, priors, pred, [first, second], num_classes=1)
    assert result.dynamic_k.tolist() == [1, 1]
    assert result.gt_index.tolist() == [[0, -1, 1]]

    def cost(iou, x, center):
        return math.log(2) * (iou - 0.5) ** 2 - 3 * math.log(iou + 1e-7) + 10 ** (abs(x - center) / 8 - 3)

    matrix = SimOTAAssigner("rtmdet", backend=backend).cost_matrix(
        torch.tensor(pred)[None],
        torch.zeros(1, 3, 1),
        priors,
        [torch.tensor([first, second])],
        [torch.tensor([0, 0])],
    )
    expected = [
        [cost(1, 8, 10), cost(0.6, 16, 10), cost(1 / 3, 24, 10)],
        [cost(1 / 3, 8, 20), cost(0.6, 16, 20), cost(1, 24, 20)],
    ]
    torch.testing.assert_close(matrix.cost, torch.tensor([expected]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(matrix.iou, torch.tensor([[[1, 0.6, 1 / 3], [1 / 3, 0.6, 1]]]))


def test_a_disputed_prior_worked_out_by_hand(backend):
    """The blog text's cost; three gts select one prior: the cheapest has not the largest IoU."""
    prior, pred = torch.tensor([[16.0, 16.0, 8.0, 8.0]]), [0.0, 0.0, 32.0, 24.0]
    gts = [[0.0, 0.0, 32.0, 32.0], [8.0, 8.0, 24.0, 24.0], [15.0, 0.0, 33.0, 32.0]]
    # IoUs 3/4, 1/3 and 17 * 24 / 936; with logits -9, -9 and 9 the class costs 3.80, 0.33 and 1.62, the IoU
    # 0.86, 3.30 and 2.49
    cls = torch.tensor([[-9.0, 9.0]])
    for conflict, winner, iou in (("all", 1, 1 / 3), ("matched", 1, 1 / 3), ("max_iou", 0, 3 / 4)):
        result = run(
            SimOTAConfig.seed(conflict=conflict), backend, prior, pred, gts, labels=[0, 0, 1], cls=cls
        )
        assert result.gt_index.tolist() == [[winner]]
        assert result.claims.tolist() == [[3]]
        assert float(result.matched_iou) == pytest.approx(iou)


def test_a_weighted_centre_prior_counts_as_far_as_float32_goes_and_is_then_the_same(backend):
    """A gt 125 strides wide; its centre prior is 3.31e38 and 3.16e38 for two priors, and beyond float32 for
    the third.
    """
    centers = [500 - 8 * 41.52, 500 + 8 * 41.5, 20.0]
    priors = torch.tensor([[x, 8.0, 8.0, 8.0] for x in centers])
    config, pred, gt = SimOTAConfig.rtmdet(center_weight=0.5), [0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 1000.0, 16.0]
    result = run(config, backend, priors, pred, [gt])
    assert result.dynamic_k.tolist() == [1]
    assert result.gt_index.tolist() == [[-1, 0, -1]]
    matrix = SimOTAAssigner(config, backend=backend).cost_matrix(
        torch.tensor([[pred] * 3]), torch.zeros(1, 3, 2), priors, [torch.tensor([gt])], [torch.tensor([0])]
    )
    assert matrix.cost[0, 0].tolist() == pytest.approx([10**38.52 / 2, 10**38.5 / 2, 3e38], rel=1e-4)


def test_every_preset_survives_the_hostile_families(backend):
    for preset in PRESETS if backend in QUICK else ("rtmdet", "yolox"):
        assigner = SimOTAAssigner(preset, backend=backend)
        for family in (
            "nonfinite",
            "flat_predictions",
            "flat_gts",
            "far",
            "saturated",
            "few_priors",
            "all_empty",
            "outside",
        ):
            scene = make_scene(101 if backend in QUICK else 375, family)
            problem = scene.problem(assigner.config)
            assert not judge(scene.call(assigner), problem, assigner.config).unexplained, (preset, family)
