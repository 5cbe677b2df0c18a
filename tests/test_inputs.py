"""The forms, layouts and dtypes that inputs come in: all of them give the same answer, to the bit."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from simota_triton import SimOTAAssigner, SimOTAConfig, backends, grid_priors, mask_centers
from simota_triton import priors as known_priors
from simota_triton.backends import BACKENDS
from simota_triton.boxes import box_center
from simota_triton.inputs import pack
from simota_triton.matching import Matching
from simota_triton.verification.scenes import FAMILIES, FORMS, LAYOUTS, make_scene
from tests.support.interpreter import QUICK, SMALL

PRESETS = ("rtmdet", "yolox", "seed", "super_gradients_fast", "picodet")
PER_PRIOR = ("gt_index", "labels", "matched_iou", "fg_mask", "gt_boxes", "ignore_mask", "claims")


def scenes(backend, only=lambda scene: True):
    """A scene of each family, or a few small ones where a backend is slow."""
    return [
        scene for scene in map(make_scene, range(len(FAMILIES)) if backend in QUICK else SMALL) if only(scene)
    ]


def runs(presets):
    """Backend and preset: all of them, but two presets for slow backends."""
    pairs = [
        (backend, preset)
        for backend in BACKENDS
        for preset in (presets if backend in QUICK else ("rtmdet", "yolox"))
    ]
    return pytest.mark.parametrize(("backend", "preset"), pairs)


def assert_same(first, second, fields=PER_PRIOR, where=""):
    for name in fields:
        assert torch.equal(getattr(first, name), getattr(second, name)), (name, where)


@runs(PRESETS)
def test_the_three_forms_of_gts_give_the_same_answer(backend, preset):
    assigner = SimOTAAssigner(preset, backend=backend)
    for scene in scenes(backend):
        of_list, padded, packed = (scene.call(assigner, form) for form in ("list", "padded", "packed"))
        assert_same(of_list, padded, where=scene.seed)
        assert_same(of_list, packed, where=scene.seed)
        assert torch.equal(of_list.dynamic_k, packed.dynamic_k)
        for b, boxes in enumerate(scene.gt_boxes):
            assert padded.dynamic_k[b].tolist() == of_list.to_image(b).dynamic_k.tolist() + [0] * (
                padded.dynamic_k.shape[1] - len(boxes)
            )


@runs(PRESETS)
def test_padding_may_stand_anywhere(backend, preset):
    assigner = SimOTAAssigner(preset, backend=backend)
    for scene in scenes(backend):
        of_list, scattered = scene.call(assigner), scene.call(assigner, "scattered")
        assert_same(
            of_list, scattered, ("labels", "matched_iou", "fg_mask", "gt_boxes", "claims"), scene.seed
        )
        # slot of a real gt -> its place among the real ones
        slots = (scattered.dynamic_k > 0).long().cumsum(1) - 1
        row = torch.where(scattered.fg_mask, scattered.gt_index, 0)
        mapped = slots.gather(1, row) if slots.shape[1] else row
        assert torch.equal(torch.where(scattered.fg_mask, mapped, -1), of_list.gt_index)
        assert torch.equal(scattered.dynamic_k[scattered.dynamic_k > 0], of_list.dynamic_k)


NOTHING = (
    torch.tensor([]),
    torch.zeros(0, 4),
    torch.zeros(2, 0, 4),
    torch.zeros(0, 5),
    torch.zeros(1, 0),
    torch.zeros(0, 1).bool(),
)


@pytest.mark.parametrize("empty", NOTHING, ids=lambda value: str(list(value.shape)))
@pytest.mark.parametrize("backend", BACKENDS)
def test_any_tensor_without_elements_stands_for_no_gts(backend, empty):
    scene = make_scene(1 if backend in QUICK else SMALL[0])
    assigner = SimOTAAssigner("rtmdet", backend=backend)
    shared = scene.pred_boxes[:2], scene.cls_logits[:2], scene.priors
    boxes, labels = scene.gt_boxes[0].double(), scene.gt_labels[0].int()
    expected = assigner(*shared, [boxes, torch.zeros(0, 4).double()], [labels, torch.zeros(0).int()])
    found = assigner(
        *shared,
        [boxes, empty],
        [labels, empty],
        gt_centers=[box_center(boxes), empty],
        ignore_boxes=[empty, empty],
    )
    assert_same(expected, found)
    assert_same(expected, assigner(*shared, [boxes, empty], [labels, empty], ignore_boxes=empty))
    for more in (
        {},
        {"gt_mask": empty},
        {"gt_offsets": torch.zeros(3, dtype=torch.int64)},
        {"gt_centers": empty},
    ):
        result = assigner(*shared, empty, empty, **more)
        assert not bool(result.fg_mask.any())
        assert result.dynamic_k.shape == ((0,) if "gt_offsets" in more else (2, 0))
        assert result.labels.unique().tolist() == [scene.num_classes]


def test_forms_without_padding_need_no_mask():
    scene = make_scene(1)
    count = min(map(len, scene.gt_boxes))
    assigner = SimOTAAssigner("rtmdet", backend="reference")
    boxes, labels = (torch.stack([v[:count] for v in values]) for values in (scene.gt_boxes, scene.gt_labels))
    without = assigner(scene.pred_boxes, scene.cls_logits, scene.priors, boxes, labels)
    all_real = torch.ones(boxes.shape[:2], dtype=torch.bool)
    assert_same(
        without, assigner(scene.pred_boxes, scene.cls_logits, scene.priors, boxes, labels, gt_mask=all_real)
    )
    assert bool((without.dynamic_k > 0).all())


@runs(SimOTAConfig.presets())
def test_the_layout_of_logits_changes_nothing(backend, preset):
    assigner = SimOTAAssigner(preset, backend=backend)
    for scene in scenes(backend):
        flat, *others = (scene.call(assigner, layout=layout) for layout in LAYOUTS)
        for other in others:
            assert_same(flat, other, where=scene.seed)
            assert torch.equal(flat.dynamic_k, other.dynamic_k)


@pytest.mark.parametrize("backend", BACKENDS)
def test_objectness_may_come_without_its_last_dimension(backend):
    scene, assigner = make_scene(3), SimOTAAssigner("yolox", backend=backend)
    assert_same(scene.call(assigner), scene.call(assigner, obj_logits=scene.obj_logits[..., 0]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_classes_and_objectness_may_differ_in_layout_levels_and_dtype(backend):
    scene, assigner = make_scene(69), SimOTAAssigner("yolox", backend=backend)
    count = len(scene.priors)
    assert len(scene.cells) > 1
    scene.cls_logits, scene.obj_logits = scene.cls_logits.half(), scene.obj_logits.bfloat16().float()
    plain = scene.call(assigner)
    maps = scene.inputs("joint", layout="maps")
    one_map = [scene.obj_logits.transpose(1, 2).reshape(-1, 1, 1, count)]
    for cls in (scene.cls_logits, maps[0][1]):
        for obj in (scene.obj_logits, scene.obj_logits.bfloat16(), maps[1]["obj_logits"], one_map):
            args = (scene.pred_boxes, cls, scene.priors, scene.gt_boxes, scene.gt_labels)
            assert_same(plain, assigner(*args, obj_logits=obj))


@runs(PRESETS)
def test_priors_of_three_columns_have_square_strides(backend, preset):
    assigner = SimOTAAssigner(preset, backend=backend)
    for scene in scenes(backend, lambda scene: scene.family != "odd_strides"):
        full = scene.call(assigner)
        assert torch.equal(scene.priors[:, 2], scene.priors[:, 3])
        assert_same(full, replace(scene, priors=scene.priors[:, :3]).call(assigner), where=scene.seed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@runs(PRESETS)
def test_half_precision_inputs_are_taken_at_their_value(backend, preset, dtype):
    assigner = SimOTAAssigner(preset, backend=backend)
    for scene in scenes(backend, lambda scene: scene.family not in ("nonfinite", "far")):
        half = {
            name: getattr(scene, name).to(dtype)
            for name in ("pred_boxes", "cls_logits", "obj_logits", "priors")
        }
        half["gt_boxes"] = [boxes.to(dtype) for boxes in scene.gt_boxes]
        single = {
            name: value.float() if name != "gt_boxes" else [boxes.float() for boxes in value]
            for name, value in half.items()
        }
        first, second = replace(scene, **half).call(assigner), replace(scene, **single).call(assigner)
        assert_same(first, second, where=scene.seed)
        assert first.matched_iou.dtype == first.gt_boxes.dtype == torch.float32


@pytest.mark.parametrize("backend", BACKENDS)
def test_float64_inputs_are_rounded_to_float32(backend):
    assigner = SimOTAAssigner("yolox", backend=backend)
    for scene in scenes(backend):
        names = ("pred_boxes", "cls_logits", "obj_logits", "priors")
        wide = replace(
            scene,
            **{name: getattr(scene, name).double() for name in names},
            gt_boxes=[boxes.double() for boxes in scene.gt_boxes],
        )
        assert_same(scene.call(assigner), wide.call(assigner), where=scene.seed)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8])
def test_labels_of_any_integer_dtype(dtype):
    scene, assigner = make_scene(3), SimOTAAssigner("rtmdet", backend="reference")
    narrow = replace(scene, gt_labels=[labels.to(dtype) for labels in scene.gt_labels])
    assert_same(scene.call(assigner), narrow.call(assigner))
    assert narrow.call(assigner).labels.dtype == torch.int64


# independence of what else is in the batch


@pytest.mark.parametrize("form", FORMS[:2])
@runs(PRESETS)
def test_an_image_does_not_depend_on_its_batch(backend, preset, form):
    assigner = SimOTAAssigner(preset, backend=backend)
    for scene in scenes(backend, lambda scene: len(scene.gt_boxes) > 1 and scene.family != "identical"):
        together = scene.call(assigner, form)
        for b in range(len(scene.gt_boxes)):
            alone = one_image(scene, b).call(assigner, form)
            for name in PER_PRIOR:
                assert torch.equal(getattr(alone, name)[0], getattr(together, name)[b]), (name, scene.seed, b)
            assert (
                alone.dynamic_k.flatten().tolist()[: len(scene.gt_boxes[b])]
                == together.to_image(b).dynamic_k.tolist()[: len(scene.gt_boxes[b])]
            )


def one_image(scene, b):
    def own(values):
        return None if values is None else values[b : b + 1]

    mask = scene.candidate_mask
    return replace(
        scene,
        **{
            name: own(getattr(scene, name))
            for name in ("pred_boxes", "cls_logits", "obj_logits", "gt_boxes", "gt_labels")
        },
        **{name: own(getattr(scene, name)) for name in ("gt_centers", "ignore_boxes")},
        candidate_mask=mask if mask is None or mask.ndim == 1 else own(mask),
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_order_of_gts_and_priors_is_only_a_matter_of_names(backend):
    assigner = SimOTAAssigner("rtmdet", backend=backend)
    generator = torch.Generator().manual_seed(0)
    for scene in scenes(
        backend,
        lambda scene: (
            scene.family in ("random", "mid", "trained", "swapped", "huge") and scene.candidate_mask is None
        ),
    ):
        there = torch.randperm(len(scene.priors), generator=generator)
        turned = replace(
            scene,
            priors=scene.priors[there],
            pred_boxes=scene.pred_boxes[:, there],
            cls_logits=scene.cls_logits[:, there],
            gt_boxes=[b.flip(0) for b in scene.gt_boxes],
            gt_labels=[v.flip(0) for v in scene.gt_labels],
            gt_centers=None if scene.gt_centers is None else [c.flip(0) for c in scene.gt_centers],
        )
        first, second = scene.call(assigner), turned.call(assigner)
        count = torch.tensor([len(b) for b in scene.gt_boxes])[:, None]
        index = torch.where(second.fg_mask, count - 1 - second.gt_index, -1)
        assert torch.equal(first.gt_index[:, there], index), scene.seed
        assert torch.equal(first.matched_iou[:, there], second.matched_iou), scene.seed


# masks of candidates, centres, ignore boxes


@runs(PRESETS)
def test_a_masked_prior_might_as_well_not_exist(backend, preset):
    assigner = SimOTAAssigner(preset, backend=backend)
    generator = torch.Generator().manual_seed(3)
    for scene in scenes(backend, lambda scene: scene.family != "identical"):
        mask = torch.rand(len(scene.priors), generator=generator) < 0.6
        masked = replace(scene, candidate_mask=mask).call(assigner)
        fewer = replace(
            scene, candidate_mask=None, priors=scene.priors[mask], pred_boxes=scene.pred_boxes[:, mask],
            cls_logits=scene.cls_logits[:, mask], obj_logits=scene.obj_logits[:, mask],
        ).call(assigner)  # fmt: skip
        for name in PER_PRIOR:
            assert torch.equal(getattr(masked, name)[:, mask], getattr(fewer, name)), (name, scene.seed)
        assert torch.equal(masked.dynamic_k, fewer.dynamic_k)
        assert not bool(masked.fg_mask[:, ~mask].any())
        each = mask.expand(len(scene.gt_boxes), -1).clone()
        assert_same(masked, replace(scene, candidate_mask=each).call(assigner), where=scene.seed)


@pytest.mark.parametrize("backend", BACKENDS)
def test_given_centres_take_the_place_of_box_centres(backend):
    for preset in PRESETS if backend in QUICK else PRESETS[:2]:
        assigner = SimOTAAssigner(preset, backend=backend)
        for scene in scenes(backend, lambda scene: scene.gt_centers is None)[:12]:
            given = [box_center(boxes) for boxes in scene.gt_boxes]
            assert_same(
                scene.call(assigner), replace(scene, gt_centers=given).call(assigner), where=scene.seed
            )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_moved_centre_moves_the_positives(backend):
    priors = torch.tensor([[8.0 * i, 16.0, 8.0, 8.0] for i in range(1, 12)])
    gt, labels = [torch.tensor([[0.0, 0.0, 96.0, 32.0]])], [torch.tensor([0])]
    # IoUs of 1/4: dynamic k is floor(11 / 4)
    quarter = gt[0].expand(1, 11, 4) + torch.tensor([0.0, 0.0, 0.0, 96.0])
    rtmdet = SimOTAAssigner("rtmdet", backend=backend)
    args = (quarter, torch.zeros(1, 11, 1), priors, gt, labels)
    # x = 48, and of 40 and 56, which are as far, the first
    assert rtmdet(*args).fg_mask.nonzero()[:, 1].tolist() == [
        4,
        5,
    ]
    # x = 24, 32
    assert rtmdet(*args, gt_centers=[torch.tensor([[25.0, 16.0]])]).fg_mask.nonzero()[:, 1].tolist() == [
        2,
        3,
    ]
    yolox = SimOTAAssigner("yolox_main", backend=backend)
    args, objectness = (gt[0].expand(1, 11, 4), *args[1:]), torch.zeros(1, 11, 1)
    assert yolox(*args, obj_logits=objectness).fg_mask.nonzero()[:, 1].tolist() == [4, 5, 6]  # 36 < x < 60
    moved = yolox(*args, obj_logits=objectness, gt_centers=[torch.tensor([[76.0, 16.0]])])
    assert moved.fg_mask.nonzero()[:, 1].tolist() == [8, 9]  # 64 < x < 88


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.float16])
def test_mask_centres_are_mean_pixel_indices(dtype):
    masks = torch.zeros(3, 10, 12, dtype=torch.bool)
    masks[0, 2:5, 4:8] = True  # rows 2 3 4, columns 4 5 6 7
    masks[1, 0, 0] = masks[1, 9, 11] = masks[1, 9, 0] = True
    boxes = torch.tensor([[4.0, 2.0, 8.0, 5.0], [0.0, 0.0, 12.0, 10.0], [3.0, 5.0, 6.0, 9.0]])
    centers = mask_centers(masks.to(dtype), boxes)
    assert centers.dtype == torch.float32
    # the third mask is empty: its box
    torch.testing.assert_close(centers, torch.tensor([[5.5, 3.0], [11 / 3, 6.0], [4.5, 7.0]]))


def test_mask_centres_weigh_soft_masks():
    masks = torch.zeros(1, 2, 4)
    masks[0, 0, 0], masks[0, 1, 3] = 0.75, 0.25
    torch.testing.assert_close(mask_centers(masks, torch.zeros(1, 4)), torch.tensor([[0.75, 0.25]]))


def test_mask_centres_of_many_masks_and_of_none():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(45, 17, 23, generator=generator) < 0.3  # more than one block
    grid_y, grid_x = torch.meshgrid(torch.arange(17.0), torch.arange(23.0), indexing="ij")
    expected = torch.stack([torch.stack([grid_x[m].mean(), grid_y[m].mean()]) for m in masks])
    torch.testing.assert_close(mask_centers(masks, torch.zeros(45, 4)), expected)
    assert mask_centers(torch.zeros(0, 5, 5), torch.zeros(0, 4)).shape == (0, 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ignore_boxes_flag_background_strictly_inside_them(backend):
    priors = torch.tensor([[8.0 * i, 8.0, 8.0, 8.0] for i in range(1, 7)])
    pred = torch.tensor([[4.0, 0.0, 20.0, 16.0]]).expand(2, 6, 4)
    args = (
        pred,
        torch.zeros(2, 6, 1),
        priors,
        [torch.tensor([[4.0, 0.0, 20.0, 16.0]]), torch.zeros(0, 4)],
        [torch.tensor([0]), torch.zeros(0).long()],
    )
    assigner = SimOTAAssigner(SimOTAConfig.rtmdet(prior_offset=0.5), backend=backend)
    plain = assigner(*args)
    assert plain.fg_mask.tolist() == [[True, True] + [False] * 4, [False] * 6]
    assert not bool(plain.ignore_mask.any())
    ignore = [
        torch.tensor([[0.0, 0.0, 32.0, 32.0], [47.0, 0.0, 49.0, 9.0]]),
        torch.tensor([[20.0, 0.0, 30.0, 8.0]]),
    ]
    flagged = assigner(*args, ignore_boxes=ignore)
    assert_same(plain, flagged, ("gt_index", "labels", "matched_iou", "claims", "dynamic_k"))
    # image 0: priors 0 and 1 are positive, 2 (x = 24) is inside, 3 (x = 32) on the edge, 5 (x = 48) in the
    # second box image 1: prior 2 lies on the lower edge of its box
    assert flagged.ignore_mask.tolist() == [[False, False, True, False, False, True], [False] * 6]
    padded = torch.zeros(2, 3, 4)
    padded[0, :2], padded[1, :1] = ignore[0], ignore[1]
    assert_same(flagged, assigner(*args, ignore_boxes=padded))
    half = [boxes.half() for boxes in ignore]
    assert_same(flagged, assigner(*args, ignore_boxes=half))


@pytest.mark.parametrize("preset", SimOTAConfig.presets())
def test_ignore_boxes_are_held_against_the_centres_of_cells(preset):
    config = SimOTAConfig.from_preset(preset)
    priors = grid_priors(64, offset=config.prior_offset)
    args = (
        torch.zeros(1, len(priors), 4),
        torch.zeros(1, len(priors), 1),
        priors,
        torch.zeros(1, 0, 4),
        torch.zeros(1, 0),
    )
    more = {"obj_logits": torch.zeros(1, len(priors))} if config.score == "joint" else {}
    for box in ([0.0, 0.0, 64.0, 64.0], [4.0, 0.0, 12.5, 16.0]):
        result = SimOTAAssigner(config)(*args, ignore_boxes=[torch.tensor([box])], **more)
        # a crowd over the whole image holds all of them
        x, y = (grid_priors(64, offset=0.5)[:, i] for i in (0, 1))
        assert torch.equal(
            result.ignore_mask[0], (x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])
        ), box
        assert bool(result.ignore_mask.any())


# packing


def test_packing_leaves_predictions_where_they_are():
    scene = make_scene(3)
    problem = scene.problem(SimOTAConfig.rtmdet())
    assert problem.pred_boxes.data_ptr() == scene.pred_boxes.data_ptr()
    assert problem.cls_logits.levels[0].data_ptr() == scene.cls_logits.data_ptr()
    maps = [torch.randn(1, 3, 4, 5), torch.randn(1, 3, 2, 2)]
    priors = torch.ones(24, 4)
    problem = pack(
        SimOTAConfig.rtmdet(),
        torch.zeros(1, 24, 4),
        maps,
        priors,
        [torch.zeros(0, 4)],
        [torch.zeros(0).long()],
    )
    assert [level.data_ptr() for level in problem.cls_logits.levels] == [level.data_ptr() for level in maps]


def test_priors_that_passed_once_are_looked_at_again_once_they_differ(monkeypatch):
    monkeypatch.setattr(known_priors, "MAX_KNOWN", 2)
    for count in (5, 6, 7, 5):
        priors = torch.ones(count, 4)
        values = (
            torch.zeros(1, count, 4),
            torch.zeros(1, count, 2),
            priors,
            [torch.zeros(0, 4)],
            [torch.zeros(0, dtype=torch.int64)],
        )
        first, second = (pack(SimOTAConfig.rtmdet(), *values).priors for _ in range(2))
        assert first is second  # a copy that is kept
        assert first is not priors
        assert torch.equal(first, priors)
        for wrong, expected in ((torch.nan, "finite values"), (-1.0, "strides > 0")):
            priors[2, 3] = wrong  # in place
            for _ in range(2):
                with pytest.raises(ValueError, match=expected):
                    pack(SimOTAConfig.rtmdet(), *values)
    assert len(known_priors._KNOWN) <= 2


def test_scores_are_read_in_prior_order_whatever_their_layout():
    scene = make_scene(3)
    batch, count, classes = scene.cls_logits.shape
    generator = torch.Generator().manual_seed(0)
    image, prior, label = (torch.randint(n, (200,), generator=generator) for n in (batch, count, classes))
    for layout in LAYOUTS:
        scores = scene.problem(SimOTAConfig.rtmdet(), layout=layout).cls_logits
        assert scores.shape == (batch, count, classes)
        assert torch.equal(scores.dense(), scene.cls_logits)
        assert torch.equal(scores.rows(image, prior), scene.cls_logits[image, prior])
        assert torch.equal(scores.at(image, prior, label), scene.cls_logits[image, prior, label])
        assert torch.equal(
            scores.at(image[:9, None], prior, label[:9, None]),
            scene.cls_logits[image[:9, None], prior, label[:9, None]],
        )


@runs(PRESETS)
@pytest.mark.parametrize("looked_at", [True, False])
def test_rows_that_no_image_owns_take_no_part(backend, preset, looked_at, monkeypatch):
    """Offsets that the host knows, and offsets on a device, at which nobody looks."""
    config = SimOTAConfig.from_preset(preset)
    for scene in scenes(
        backend, lambda scene: scene.family in ("crowded", "empty_images", "perfect") or backend not in QUICK
    ):
        without, spare = (scene.inputs(config.score, form) for form in ("packed", "spare"))
        assigner = SimOTAAssigner(config, backend=backend)
        expected = assigner(*without[0], **without[1])
        first, last = int(spare[1]["gt_offsets"][0]), int(spare[1]["gt_offsets"][-1])
        if looked_at:
            found = assigner(*spare[0], **spare[1])
        else:
            with monkeypatch.context() as patch:
                patch.setattr(torch.compiler, "is_compiling", lambda: True)
                problem = pack(config, *spare[0], **spare[1], validate=False)
            assert problem.gts.max_count is None
            found = backends.assign(backend, problem, config)
            expected = Matching(expected.gt_index, expected.matched_iou, expected.dynamic_k, expected.claims)
        assert_same(
            found, expected, PER_PRIOR if looked_at else ("gt_index", "matched_iou", "claims"), scene.seed
        )
        rows = found.dynamic_k.shape[0]
        assert found.dynamic_k.tolist() == [0] * first + expected.dynamic_k.tolist() + [0] * (rows - last)


@pytest.mark.parametrize("offsets", [[0, 3, 3, 5], [0, 0, 0, 5], [0, 5, 5, 5], [0, 1, 2, 5]])
def test_rows_of_packed_gts_know_their_image(offsets):
    counts = [b - a for a, b in pairwise(offsets)]
    gts = pack(
        SimOTAConfig.rtmdet(),
        torch.zeros(3, 2, 4),
        torch.zeros(3, 2, 1),
        torch.ones(2, 4),
        torch.arange(20.0).view(5, 4),
        torch.zeros(5, dtype=torch.int64),
        gt_offsets=torch.tensor(offsets),
    ).gts
    assert gts.image().tolist() == [b for b, count in enumerate(counts) for _ in range(count)]
    row, valid = gts.padded_rows()
    assert [row[b][valid[b]].tolist() for b in range(3)] == [
        list(range(offsets[b], offsets[b + 1])) for b in range(3)
    ]
    per_slot = torch.arange(row.numel()).view(row.shape)
    assert gts.unpad(per_slot).tolist() == per_slot[valid].tolist()
