"""Scenes that attack what the streaming kernels of the task-aligned rule leave out, and that they leave it
out: each answer is the definition's, with tiles small enough that most could be skipped.
"""

from __future__ import annotations

import pytest
import torch

from simota_triton import TaskAlignedConfig, grid_priors
from simota_triton.inputs import pack
from simota_triton.kernels.host import INTERPRETED
from simota_triton.kernels.stream.aligned import search
from simota_triton.measure.simulate import random_gts, simulate_predictions
from simota_triton.task_aligned import reference
from simota_triton.tuning.stream_config import StreamConfig
from tests.support.kernels import streamed

KERNELS = StreamConfig(tile=32, rows=32, bounds=32, iou_bounds=32, gts=32, resolvers=1)
SIZE, CLASSES = 96, 3
PRIORS = grid_priors(SIZE, offset=0.5)  # 12 * 12, 6 * 6 and 3 * 3: nine tiles
CONFIGS = {
    name: TaskAlignedConfig.from_preset(name) for name in ("tal", "yolov9", "yolov6", "tood", "yolo9_mit")
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def check(config, boxes, labels=None, pred=None, cls=None, priors=PRIORS):
    """One image, its predictions simulated but for what is given; returns the answer."""
    boxes = torch.as_tensor(boxes, dtype=torch.float32).view(-1, 4)
    labels = torch.arange(len(boxes)) % CLASSES if labels is None else torch.as_tensor(labels)
    simulated = simulate_predictions([boxes], [labels], priors, CLASSES, "mid", generator(1))[:2]
    pred, cls = (old if new is None else new[None] for old, new in zip(simulated, (pred, cls), strict=True))
    problem = pack(config, pred, cls, priors, [boxes], [labels])
    found, expected = streamed(problem, config, KERNELS), reference.assign(problem, config)
    for name in ("gt_index", "claims", "dynamic_k"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    torch.testing.assert_close(found.scores, expected.scores, rtol=2e-5, atol=1e-12)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_the_best_overlap_has_the_worst_score(name):
    """Nearly perfect predictions whose class is nearly ruled out, and worse ones that are sure: the list is
    full of the latter when tiles come in the order of their IoUs.
    """
    gt = torch.tensor([10.0, 10.0, 80.0, 76.0])
    error = 20 * torch.rand(len(PRIORS), 1, generator=generator()) + 1
    pred = gt + error * (torch.rand(len(PRIORS), 4, generator=generator(1)) - 0.5)
    cls = (error - 14).expand(-1, CLASSES) * 1.5
    found = check(CONFIGS[name], gt, pred=pred, cls=cls)
    assert (found.gt_index == 0).sum() == CONFIGS[name].topk or name == "tood"  # whose best lie anywhere


@pytest.mark.parametrize("name", CONFIGS)
def test_ties_at_the_kth_largest_go_to_the_lowest_prior_of_any_tile(name):
    order = torch.randperm(len(PRIORS), generator=generator())
    kinds = torch.tensor([[20.0, 20.0, 60.0, 60.0], [22.0, 20.0, 60.0, 60.0], [20.0, 30.0, 70.0, 60.0]])
    pred = kinds[torch.randint(3, (len(PRIORS),), generator=generator())]
    found = check(
        CONFIGS[name], [[8.0, 8.0, 80.0, 80.0], [10.0, 10.0, 82.0, 82.0]],
        pred=pred, cls=torch.zeros(len(PRIORS), CLASSES), priors=PRIORS[order],
    )  # fmt: skip
    assert found.claims.sum() == 2 * CONFIGS[name].topk or name == "tood"


@pytest.mark.parametrize("name", ["yolo9_mit", "tood"])
def test_what_is_taken_lies_outside_of_the_region(name):
    """Good predictions at the far end of the image alone."""
    gt = torch.tensor([4.0, 4.0, 30.0, 30.0])
    far = (PRIORS[:, :2] > 60).all(1)
    pred = torch.where(far[:, None], gt, torch.tensor([60.0, 60.0, 70.0, 72.0]))
    found = check(CONFIGS[name], gt, pred=pred)
    assert int((found.gt_index[0, far] == 0).sum()) == (1 if name == "yolo9_mit" else 0)
    assert (found.gt_index[0, ~far] < 0).all()


def test_a_conflict_is_won_by_a_gt_that_selected_nothing_of_it():
    """The third gt fits the prior best, and has better ones to select."""
    boxes = [[30.0, 30.0, 60.0, 60.0], [31.0, 31.0, 62.0, 60.0], [30.0, 30.0, 61.0, 60.0]]
    labels, config = [0, 0, 1], CONFIGS["tal"].replace(topk=2)
    pred = torch.tensor([30.0, 30.0, 61.0, 60.0]).repeat(len(PRIORS), 1)
    cls = torch.full((len(PRIORS), CLASSES), -3.0)
    inside = ((PRIORS[:, :2] > 32) & (PRIORS[:, :2] < 58)).all(1).nonzero().flatten()
    cls[inside[:2], 0] = 3.0
    cls[inside[2:4], 1] = 4.0
    for conflict in ("inside", "all"):
        found = check(config.replace(conflict=conflict), boxes, labels, pred, cls)
        assert found.gt_index[0, inside[:4]].tolist() == [2, 2, 2, 2]
    found = check(config.replace(conflict="matched"), boxes, labels, pred, cls)
    assert found.gt_index[0, inside[:4]].tolist() == [0, 0, 2, 2]


def test_a_claim_from_outside_of_its_region_wins():
    """The first gt finds nothing inside and takes a prior far away, which the second one contains."""
    boxes, far = [[4.0, 4.0, 30.0, 30.0], [0.0, 0.0, 96.0, 96.0]], 9 * 12 + 9
    pred = torch.tensor([60.0, 60.0, 70.0, 72.0]).repeat(len(PRIORS), 1)
    pred[far] = torch.tensor([4.0, 4.0, 30.0, 29.0])
    for conflict in ("inside", "all", "matched"):
        found = check(TaskAlignedConfig.yolov6(at_least_one=True, conflict=conflict), boxes, pred=pred)
        assert found.claims[0, far] == 2
        assert found.gt_index[0, far] == 0


def test_regions_end_where_the_definition_says():
    """Boxes whose edges, enlarged or not, run through prior points, and a reach that ends at one."""
    edges = torch.tensor([4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 60.0])
    corner = torch.stack([edges, edges.flip(0)], 1)
    boxes = torch.cat([corner, corner + edges[:, None]], 1).tolist()
    boxes += [[20.0, 20.0, 20.0 + s, 36.0] for s in (2.0, 8.0, 15.9, 16.0)]
    reach, edge = CONFIGS["yolo9_mit"].replace(max_reach=2.0), CONFIGS["tal"].replace(inclusive=True)
    for config in (*CONFIGS.values(), reach, edge):
        check(config, boxes)


@pytest.mark.parametrize("name", ["tal", "yolo9_mit"])
def test_more_tiles_than_fit_into_registers(name):
    """45 tiles, ranked 32 at a time; the best lie in those of either round."""
    priors = grid_priors(300, (8,), offset=0.5)
    boxes = torch.tensor([[40.0, 36.0, 250.0, 260.0], [200.0, 190.0, 290.0, 280.0]])
    error = 40 * torch.rand(len(priors), 4, generator=generator(4)) - 20
    found = check(CONFIGS[name], boxes, [0, 0], pred=boxes[0] + error, priors=priors)
    assert (found.gt_index == 0).sum() >= 4


@pytest.mark.skipif(not INTERPRETED, reason="it counts calls of the interpreter")
@pytest.mark.parametrize("name", ["tal", "yolov6"])
def test_most_tiles_are_not_visited_and_most_logits_not_read(name, monkeypatch):
    counts = {"gts": 0, "visits": 0, "passed": 0, "logits": 0}

    def counting(kind, function, of=lambda *args: 1):
        def call(*args):
            counts[kind] += of(*args)
            return function(*args)

        return call

    monkeypatch.setattr(search, "empty_list", counting("gts", search.empty_list))
    monkeypatch.setattr(search, "below", counting("visits", search.below))
    monkeypatch.setattr(search, "overlap_of_pairs", counting("passed", search.overlap_of_pairs))
    monkeypatch.setattr(
        search,
        "keys_of_metrics",
        counting("logits", search.keys_of_metrics, lambda worth, *_: int(worth.handle.data.sum())),
    )
    priors = grid_priors(320, offset=0.5)  # 2,100 priors, 34 tiles
    boxes, labels = random_gts(12, 320, CLASSES, generator(3), median=64.0)
    predictions = simulate_predictions([boxes], [labels], priors, CLASSES, "mid", generator(2))
    problem = pack(CONFIGS[name], *predictions[:2], priors, [boxes], [labels])
    streamed(problem, CONFIGS[name], StreamConfig(tile=64, rows=64, bounds=64, gts=32, resolvers=1))
    assert counts["gts"] == 12
    inside = int(reference.metric_matrix(problem, CONFIGS[name])[2].sum())
    assert 12 <= counts["passed"] < counts["visits"] <= 12 * 12
    assert 12 <= counts["logits"] <= inside / 3
