"""The demo: COCO files, letterboxing, what is counted, and what the picture shows."""

from __future__ import annotations

import itertools
import json
import math
import os
from pathlib import Path

import matplotlib
import matplotlib.colors
import numpy as np
import pytest
import torch
from matplotlib import font_manager
from PIL import Image

from simota_triton import grid_priors
from simota_triton.assigners import assigner_of
from simota_triton.backends.known import config_of
from simota_triton.cli import main
from simota_triton.cli.demo.coco import read_coco
from simota_triton.cli.demo.fonts import fonts_for
from simota_triton.cli.demo.labels import place_labels
from simota_triton.cli.demo.outcome import run_presets, totals
from simota_triton.cli.demo.picture import PALETTE, draw, gt_colors
from simota_triton.cli.demo.scene import SHIPPED, load_scene
from simota_triton.cli.errors import CommandError
from simota_triton.measure.simulate import PHASES, simulate_predictions

CPU = torch.device("cpu")
COCO80 = Path(os.environ.get("SIMOTA_TRITON_COCO") or Path(__file__).parents[1] / "../shared/data/coco80")
needs_coco = pytest.mark.skipif(
    not (COCO80 / "instances.json").is_file(), reason=f"no COCO data in {COCO80}; set SIMOTA_TRITON_COCO"
)


def annotation(box, image_id=7, category_id=10, **more):
    return {"id": 1, "image_id": image_id, "category_id": category_id, "iscrowd": 0, "bbox": box, **more}


def write_coco(folder, annotations, images=None, categories=None):
    path = folder / "instances.json"
    images = images or [{"id": 7, "file_name": "a.png", "width": 200, "height": 100}]
    categories = categories or [{"id": 10, "name": "cat"}, {"id": 3, "name": "dog"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def scene_of(path, index=0, images=None, image_size=640):
    dataset = read_coco(path)
    return load_scene(dataset.images[index], dataset.classes, images, image_size)


def shipped(*presets, phase="mid", seed=0):
    scene = scene_of(SHIPPED)
    return scene, run_presets(scene, presets, phase, seed, "auto", CPU)


def artist(figure, gid):
    found = figure.findobj(lambda a: a.get_gid() == gid)
    assert len(found) == 1, f"{gid}: {len(found)} artists"
    return found[0]


def render(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def pixel_of(figure, x, y):
    """Column and row of a point given in the scene's pixels."""
    column, row = figure.axes[0].transData.transform((x, y))
    return round(column - 0.5), round(figure.bbox.height - row - 0.5)


def rgb(color):
    return np.array([round(255 * c) for c in matplotlib.colors.to_rgb(color)])


# COCO files


def test_labels_are_places_in_the_categories_order_and_crowds_are_set_apart(tmp_path):
    path = write_coco(
        tmp_path,
        [
            annotation([1, 2, 3, 4], category_id=3),
            annotation([5, 6, 7, 8]),
            annotation([0, 0, 9, 9], iscrowd=1),
        ],
    )
    dataset = read_coco(path)
    assert dataset.classes == ("cat", "dog")
    assert [(a.box, a.label, a.is_crowd) for a in dataset.images[0].annotations] == [
        ((1, 2, 4, 6), 1, False),
        ((5, 6, 12, 14), 0, False),
        ((0, 0, 9, 9), 0, True),
    ]
    assert dataset.warning() is None


def test_unusable_annotations_are_counted_by_reason(tmp_path):
    bad_boxes = [
        [0, 0, 0, 5],
        [0, 0, 5, -1],
        [0, 0, math.nan, 5],
        [0, math.nan, 5, 5],
        [math.inf, 0, 5, 5],
        [0, 0, 1e300, 5],
    ]
    entries = [annotation(box) for box in bad_boxes]
    entries += [
        annotation([0, 0, 5, 5], category_id=99),
        annotation([0, 0, 5, 5], image_id=99),
        annotation([0, 0, 5, 5], image_id=98),
    ]
    entries += [
        annotation([0, 0, 5]),
        annotation("box"),
        annotation(None),
        {"image_id": 7},
        annotation([0, 0, 5, 5], category_id=[1]),
        3,
    ]
    dataset = read_coco(write_coco(tmp_path, [*entries, annotation([1, 1, 5, 5])]))
    assert len(dataset.images[0].annotations) == 1
    assert sorted(dataset.dropped.values()) == [1, 2, 6, 6]
    warning = dataset.warning()
    assert warning.startswith("annotations left out: 15 (")
    assert "6 with a box that is empty" in warning
    assert "1 with an unknown category" in warning
    assert "2 with an unknown image" in warning
    assert "6 with fields that are missing" in warning
    assert "\n" not in warning


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON"),
        ("[]", "lists images, annotations and categories"),
        ('{"images": [], "annotations": []}', "lists images, annotations and categories"),
        (
            '{"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}',
            "KeyError 'file_name'",
        ),
        ('{"images": [], "annotations": [], "categories": [3]}', "images or categories"),
        ('{"images": [], "annotations": [], "categories": []}', "no categories"),
        (
            '{"images": [{"id": 1, "file_name": "a", "width": 0, "height": 3}], "annotations": [], '
            '"categories": [{"id": 1, "name": "a"}]}',
            "0 x 3 pixels",
        ),
    ],
)
def test_a_broken_file_is_refused_with_its_name(tmp_path, content, message):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(CommandError) as error:
        read_coco(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_pictures_of_images_in_different_folders_have_different_names(tmp_path):
    names = ["a/1.jpg", "b/1.jpg", "a_1.jpg"]
    images = [{"id": i, "file_name": name, "width": 8, "height": 8} for i, name in enumerate(names)]
    assert [image.name for image in read_coco(write_coco(tmp_path, [], images)).images] == [
        "a_1",
        "b_1",
        "a_1-2",
    ]


# scenes


def test_the_letterbox_moves_boxes_and_pixels_alike(tmp_path):
    pixels = np.zeros((100, 200, 3), dtype=np.uint8)
    pixels[20:60, 50:90] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    scene = scene_of(write_coco(tmp_path, [annotation([50, 20, 40, 40])]), images=tmp_path, image_size=320)
    assert scene.content == (320, 160)
    assert scene.photo.size == (320, 160)
    assert scene.gt_boxes.tolist() == [[80.0, 32.0, 144.0, 96.0]]
    red = np.asarray(scene.photo)[..., 0] > 127
    rows, columns = np.nonzero(red)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (80, 32, 144, 96)


def test_boxes_follow_the_rounding_of_each_side(tmp_path):
    path = write_coco(
        tmp_path,
        [annotation([20, 3, 100, 30])],
        [{"id": 7, "file_name": "a.png", "width": 200, "height": 33}],
    )
    scene = scene_of(path, image_size=320)
    assert scene.content == (320, 53)
    assert scene.gt_boxes[0].tolist() == pytest.approx([20 * 320 / 200, 3 * 53 / 33, 120 * 320 / 200, 53.0])


def test_a_photo_turned_by_its_exif_tag_fits_the_annotations_of_either_reading(tmp_path):
    image = Image.new("RGB", (100, 200))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / "a.png", exif=exif)
    for width, height in ((100, 200), (200, 100)):
        path = write_coco(tmp_path, [], [{"id": 7, "file_name": "a.png", "width": width, "height": height}])
        assert scene_of(path, images=tmp_path, image_size=200).photo.size == (width, height)


def test_a_photo_of_another_size_than_annotated_is_refused(tmp_path):
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    with pytest.raises(
        CommandError, match="expected 200 x 100 pixels, as the annotations say, got 100 x 100"
    ):
        scene_of(write_coco(tmp_path, []), images=tmp_path)


def test_the_shipped_scene_has_what_it_is_there_to_show():
    dataset = read_coco(SHIPPED)
    scene, outcomes = shipped("rtmdet", "yolox")
    assert dataset.warning() is None
    assert 6 <= len(scene.gt_boxes) <= 8
    assert len(scene.ignore_boxes) == 1
    assert bool((scene.gt_boxes[:, 0] < 0).any())  # partly outside
    assert float((scene.gt_boxes[:, 2:] - scene.gt_boxes[:, :2]).min()) < 8  # tiny
    assert [outcome.summary.num_conflicts > 0 for outcome in outcomes] == [True, True]
    assert [outcome.summary.num_empty > 0 for outcome in outcomes] == [True, False]


# numbers


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "damo", "picodet", "tal", "tal_o2o", "yolov6"])
def test_what_each_gt_got_is_what_the_assigner_gave(preset, phase):
    scene, [outcome] = shipped(preset, phase=phase, seed=3)
    priors = grid_priors(640, offset=config_of(preset).prior_offset)
    simulated = simulate_predictions(
        [scene.gt_boxes],
        [scene.gt_labels],
        priors,
        len(scene.classes),
        phase,
        torch.Generator().manual_seed(3),
    )
    objectness = {"obj_logits": simulated.obj_logits} if preset == "yolox" else {}
    result = assigner_of(config_of(preset), backend="reference")(
        simulated.pred_boxes, simulated.cls_logits, priors, [scene.gt_boxes], [scene.gt_labels],
        ignore_boxes=[scene.ignore_boxes], **objectness,
    )  # fmt: skip
    assert torch.equal(outcome.image.gt_index, result.gt_index[0])
    assert torch.equal(outcome.image.dynamic_k, result.dynamic_k)
    assert outcome.summary == result.summary()
    for gt in range(len(scene.gt_boxes)):
        mine = [p for p, owner in enumerate(result.gt_index[0].tolist()) if owner == gt]
        by_stride = [sum(float(priors[p, 2]) == stride for p in mine) for stride in (8, 16, 32)]
        assert outcome.priors_got[gt].tolist() == by_stride
        mean = sum(float(result.matched_iou[0, p]) for p in mine) / len(mine) if mine else 0.0
        assert float(outcome.mean_iou[gt]) == pytest.approx(mean, abs=1e-6)
        mean = sum(float(result.scores[0, p]) for p in mine) / len(mine) if mine else 0.0
        assert float(outcome.mean_score[gt]) == pytest.approx(mean, abs=1e-6)
        assert bool(outcome.empty[gt]) == (not mine)
        for p in mine:
            x, y = priors[p, :2].tolist()
            x0, y0, x1, y1 = scene.gt_boxes[gt].tolist()
            assert bool(outcome.is_stray[p]) == (not (x0 <= x <= x1 and y0 <= y <= y1))
    assert int(outcome.image.ignore_mask.sum()) == outcome.summary.num_ignored > 0


def test_a_seed_decides_everything():
    boxes = [shipped("rtmdet", seed=seed)[1][0].image.gt_index for seed in (0, 0, 1)]
    assert torch.equal(boxes[0], boxes[1])
    assert not torch.equal(boxes[0], boxes[2])


def test_totals_are_sums_with_their_nouns():
    _, outcomes = shipped("rtmdet", "yolox")
    first, second = (outcome.summary for outcome in outcomes)
    assert totals([first, second]) == (
        f"{first.num_gts + second.num_gts} gts, {first.num_pos + second.num_pos} positives, "
        f"{first.num_conflicts + second.num_conflicts} conflicts, "
        f"{first.num_empty + second.num_empty} gts left empty"
    )
    assert "1 conflict," in totals([second])


# labels and colours


def test_labels_stay_in_the_frame_and_off_each_other():
    generator = np.random.default_rng(0)
    for number in (1, 7, 31):
        corners = generator.uniform(0, 560, (number, 2))
        boxes = np.concatenate([corners, corners + generator.uniform(4, 80, (number, 2))], 1)
        sizes = np.stack([generator.uniform(30, 70, number), np.full(number, 12.0)], 1)
        spots = place_labels(boxes, sizes, (0, 0, 640, 640), boxes[:, :2])
        assert (spots >= 0).all()
        assert (spots + sizes <= 640).all()
        for (a, size_a), (b, size_b) in itertools.combinations(zip(spots, sizes, strict=True), 2):
            assert ((a + size_a <= b) | (b + size_b <= a)).any()


def test_a_label_does_not_cover_its_tiny_gt_or_a_dot_when_there_is_room():
    box = np.array([[300.0, 300.0, 306.0, 306.0]])
    size = np.array([[60.0, 14.0]])
    above = place_labels(box, size, (0, 0, 640, 640), np.zeros((0, 2)))[0]
    assert above.tolist() == [300.0, 286.0]
    moved = place_labels(box, size, (0, 0, 640, 640), np.array([[310.0, 290.0]]))[0]
    assert not (moved < [310, 290]).all() or not (moved + size[0] > [310, 290]).all()
    assert ((moved + size[0] <= 300) | (moved >= 306)).any()


def test_gts_that_overlap_have_different_colours_while_there_are_enough():
    boxes = np.array(
        [[0, 0, 100 - i, 100 - i] for i in range(len(PALETTE))] + [[400, 400, 410, 410]], dtype=float
    )
    colors = gt_colors(boxes)
    assert len(set(colors[:-1])) == len(PALETTE)
    many = np.concatenate([boxes[:2] + shift for shift in range(0, 2000, 200)])
    chosen = gt_colors(many)
    assert all(a != b for a, b in zip(chosen[::2], chosen[1::2], strict=True))


def _lab(linear):
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(
        linear, 0, 1
    )
    f = np.cbrt(np.maximum(xyz / [0.9505, 1.0, 1.089], 0.008856))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira and Fernandes, IEEE TVCG 2009: severity 1.0, linear RGB
SIGHTS = {
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_can_be_told_apart_by_every_kind_of_sight(sight):
    srgb = np.array([matplotlib.colors.to_rgb(color) for color in PALETTE])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = [_lab(np.array(SIGHTS[sight]) @ color) for color in linear]
    # CIE76; about 2.3 is just noticeable
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 14
    assert min(color[0] for color in seen) > 45  # light enough for a dimmed photo


# pictures


def test_dots_are_the_assigned_priors_in_their_gts_colours_sized_by_stride():
    scene, [outcome] = shipped("rtmdet")
    figure = draw(scene, outcome)
    colors = gt_colors(scene.gt_boxes.double().numpy())
    widths = []
    for stride in (8, 16, 32):
        dots = artist(figure, f"dots-{stride}")
        mine = (outcome.image.gt_index >= 0) & (outcome.priors[:, 2] == stride)
        assert np.array_equal(np.asarray(dots.get_offsets()), outcome.priors[mine, :2].numpy())
        expected = [matplotlib.colors.to_rgba(colors[gt]) for gt in outcome.image.gt_index[mine].tolist()]
        assert np.allclose(dots.get_facecolors(), expected)
        widths.append(float(dots.get_widths()[0]))
    assert widths == sorted(widths)
    assert widths[0] < 8 < widths[2]


@pytest.mark.parametrize(("image_size", "pixels"), [(64, 0.48), (640, 4.8), (1280, 4.8)])
def test_dots_shrink_with_small_images_and_never_touch_in_large_ones(image_size, pixels):
    scene = scene_of(SHIPPED, image_size=image_size)
    [outcome] = run_presets(scene, ["yolox"], "mid", 0, "auto", CPU)
    widths = artist(draw(scene, outcome), "dots-8").get_widths()
    assert widths.tolist() == pytest.approx([pixels] * len(widths))
    assert len(widths)


@pytest.mark.parametrize(("brightness", "low", "high"), [(250, 0.5, 0.6), (140, 0.6, 0.66), (40, 0.9, 1.0)])
def test_a_photo_is_dimmed_the_more_the_brighter_it_is(tmp_path, brightness, low, high):
    Image.new("RGB", (200, 100), (brightness,) * 3).save(tmp_path / "a.png")
    scene = scene_of(write_coco(tmp_path, []), images=tmp_path, image_size=64)
    [outcome] = run_presets(scene, ["yolox"], "mid", 0, "auto", CPU)
    figure = draw(scene, outcome)
    column, row = pixel_of(figure, 32, 16)
    assert low <= render(figure)[row, column].mean() / brightness <= high


def test_pixels_at_a_dot_have_its_gts_colour_and_a_contested_one_a_white_ring():
    scene, [outcome] = shipped("rtmdet")
    figure = draw(scene, outcome)
    image = render(figure)
    colors = gt_colors(scene.gt_boxes.double().numpy())
    labels = [text.get_window_extent() for text in figure.axes[0].texts]
    checked = 0
    for prior in (outcome.image.gt_index >= 0).nonzero()[:, 0].tolist():
        x, y = outcome.priors[prior, :2].tolist()
        column, row = pixel_of(figure, x, y)
        finer = (outcome.priors[:, :2] == outcome.priors[prior, :2]).all(1) & (outcome.image.gt_index >= 0)
        if int(finer.sum()) > 1 or any(
            box.padded(6).contains(column, figure.bbox.height - row) for box in labels
        ):
            continue  # under a finer dot, or a label
        assert (
            np.abs(image[row, column].astype(int) - rgb(colors[int(outcome.image.gt_index[prior])])).max()
            <= 2
        )
        checked += 1
    assert checked > 20

    contested = (outcome.image.claims > 1).nonzero()[:, 0]
    rings = artist(figure, "rings")
    assert np.array_equal(np.asarray(rings.get_offsets()), outcome.priors[contested, :2].numpy())
    for prior, width in zip(contested.tolist(), rings.get_widths().tolist(), strict=True):
        x, y = outcome.priors[prior, :2].tolist()
        around = []
        for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False):
            column, row = pixel_of(figure, x + width / 2 * np.cos(angle), y + width / 2 * np.sin(angle))
            around.append(int(image[row, column].min()))
        assert np.median(around) > 200
    free = ((outcome.image.claims == 1) & (outcome.priors[:, 2] == 32)).nonzero()[0, 0]
    column, row = pixel_of(
        figure,
        float(outcome.priors[free, 0]) + float(rings.get_widths().max()) / 2,
        float(outcome.priors[free, 1]),
    )
    assert image[row, column].min() < 120


def test_gts_without_a_prior_and_no_others_are_dashed_and_say_so():
    scene, outcomes = shipped("rtmdet", "yolox")
    for outcome in outcomes:
        empty = [gt not in outcome.image.gt_index.tolist() for gt in range(len(scene.gt_boxes))]
        figure = draw(scene, outcome)
        for gt, label in enumerate(scene.gt_labels.tolist()):
            assert (artist(figure, f"gt-{gt}").get_linestyle() not in ("-", "solid")) == empty[gt]
            assert (
                artist(figure, f"label-{gt}").get_text()
                == f"{gt} {scene.classes[label]}" + ", no prior" * empty[gt]
            )
        assert ("gt without a prior" in figure_texts(figure)) == any(empty)


def test_dashes_leave_gaps_in_the_pixels_of_an_outline():
    scene, [outcome] = shipped("rtmdet")
    emptied = outcome.image._replace(
        gt_index=torch.where(outcome.image.gt_index == 0, -1, outcome.image.gt_index)
    )
    got = outcome.priors_got.clone()
    got[0] = 0
    shares = []
    for image_result, priors_got in ((outcome.image, outcome.priors_got), (emptied, got)):
        changed = type(outcome)(**{**vars(outcome), "image": image_result, "priors_got": priors_got})
        figure = draw(scene, changed)
        image = render(figure)
        x0, _, x1, y1 = scene.gt_boxes[0].tolist()
        color = rgb(gt_colors(scene.gt_boxes.double().numpy())[0])
        edge = [pixel_of(figure, x, y1) for x in np.arange((x0 + x1) / 2, x1 - 4, 0.5)]
        shares.append(
            np.mean([np.abs(image[row, column].astype(int) - color).max() < 60 for column, row in edge])
        )
    assert shares[0] > 0.97
    assert 0.3 < shares[1] < 0.8


def test_a_crowd_region_is_hatched_and_named():
    scene, [outcome] = shipped("yolox")
    figure = draw(scene, outcome)
    assert artist(figure, "crowd-0").get_hatch()
    assert artist(figure, f"label-{len(scene.gt_boxes)}").get_text() == "person crowd"
    assert f"crowd: {outcome.summary.num_ignored} priors ignored" in figure_texts(figure)


def figure_texts(figure):
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]


def test_a_prior_outside_its_gt_is_tied_to_it(tmp_path):
    entries = [annotation([101, 101, 1.5, 1.5]), annotation([20, 20, 60, 60])]
    scene = scene_of(write_coco(tmp_path, entries), image_size=200)
    [outcome] = run_presets(scene, ["yolox"], "mid", 0, "auto", CPU)
    strays = outcome.is_stray.nonzero()[:, 0].tolist()
    assert strays
    segments = artist(draw(scene, outcome), "ties").get_segments()
    assert len(segments) == len(strays)
    for segment, prior in zip(segments, strays, strict=True):
        box = outcome.image.gt_boxes[prior].tolist()
        assert segment[0].tolist() == outcome.priors[prior, :2].tolist()
        assert segment[1].tolist() == np.clip(segment[0], box[:2], box[2:]).tolist()


def test_the_title_names_preset_phase_simulation_and_totals():
    scene, [outcome] = shipped("yolox", phase="trained")
    texts = figure_texts(draw(scene, outcome))
    assert "yolox" in texts
    assert "street, simulated predictions (trained)" in texts
    assert totals([outcome.summary]) in texts
    assert [
        f"stride {s}: {n} priors"
        for s, n in zip((8, 16, 32), outcome.priors_got.sum(0).tolist(), strict=True)
    ] == texts_of_strides(texts)


@pytest.mark.parametrize(("preset", "topk"), [("tal", 10), ("tal_o2o", 7)])
def test_the_title_of_a_task_aligned_preset_tells_topk_and_scores(preset, topk):
    scene, [outcome] = shipped(preset)
    mean = float(outcome.image.scores[outcome.image.fg_mask].mean())
    expected = f"{totals([outcome.summary])}; top {topk} of each gt, mean score {mean:.2f}"
    assert expected in figure_texts(draw(scene, outcome))
    assert 0 < mean < 1


def texts_of_strides(texts):
    return [text for text in texts if text.startswith("stride")]


def overlapping_texts(figure):
    """Pairs of labels that share pixels, and labels that leave the frame."""
    figure.canvas.draw()
    frame = figure.axes[0].get_window_extent()
    boxes = [(text.get_text(), text.get_bbox_patch().get_window_extent()) for text in figure.axes[0].texts]
    pairs = [
        (a, b) for (a, p), (b, q) in itertools.combinations(boxes, 2) if p.padded(-1).overlaps(q.padded(-1))
    ]
    return pairs, [
        text
        for text, box in boxes
        if not (frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)
    ]


@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "tal"])
def test_texts_of_the_shipped_scene_share_no_pixels_and_stay_in_the_frame(preset):
    scene, [outcome] = shipped(preset)
    figure = draw(scene, outcome)
    assert overlapping_texts(figure) == ([], [])
    page = figure.bbox
    for text in figure.texts:
        assert text.get_window_extent().x1 <= page.x1
        assert text.get_window_extent().y0 > figure.axes[0].get_window_extent().y1


def test_odd_scenes_are_drawn(tmp_path):
    names = [{"id": 10, "name": "$\\frac$"}, {"id": 3, "name": "[bold]" * 9}, {"id": 4, "name": ""}]
    entries = [
        annotation([-1e5, -1e5, 2e5, 2e5]),
        annotation([900, 900, 50, 50], category_id=3),
        annotation([0, 0, 0.01, 0.01], category_id=4),
    ]
    entries += [annotation([10, 10, 20, 20], category_id=4, iscrowd=1)]
    image = [{"id": 7, "file_name": "$\\frac$.png", "width": 3, "height": 300}]
    for objects in (entries, []):
        scene = scene_of(write_coco(tmp_path, objects, image, names), image_size=96)
        for outcome in run_presets(scene, ["rtmdet", "yolox_main", "tal"], "untrained", 0, "auto", CPU):
            assert render(draw(scene, outcome)).std() > 1


@needs_coco
def test_a_crowded_photo_has_readable_labels_and_a_dimmed_photo():
    path, images = COCO80 / "instances.json", COCO80 / "images"
    dataset = read_coco(path)
    record = max(dataset.images, key=lambda image: len(image.annotations))
    scene = load_scene(record, dataset.classes, images, 640)
    [outcome] = run_presets(scene, ["rtmdet"], "mid", 0, "auto", CPU)
    figure = draw(scene, outcome)
    assert overlapping_texts(figure) == ([], [])
    assert 20 < np.asarray(figure.axes[0].images[0].get_array()).mean() < 110


@needs_coco
def test_every_object_of_coco80_is_read():
    dataset = read_coco(COCO80 / "instances.json")
    found = [annotation for image in dataset.images for annotation in image.annotations]
    assert (len(dataset.images), len(found), sum(a.is_crowd for a in found), len(dataset.classes)) == (
        80,
        739,
        8,
        80,
    )
    assert dataset.warning() is None


# fonts


@pytest.fixture
def only_shipped_fonts(monkeypatch):
    """matplotlib's own fonts, whatever this machine has."""
    shipped = [font for font in font_manager.fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", shipped)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)


@pytest.mark.usefixtures("only_shipped_fonts")
def test_characters_that_the_default_font_lacks_are_drawn_in_another(tmp_path, capsys):
    arc = "\N{ARC}"  # not in DejaVu Sans
    with fonts_for(f"cat {arc}"):
        default, other = matplotlib.rcParams["font.family"]
        assert default == "sans-serif"
        assert ord(arc) in font_manager.get_font(font_manager.findfont(other)).get_charmap()
    assert matplotlib.rcParams["font.family"] == ["sans-serif"]
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("only_shipped_fonts")
def test_characters_that_no_font_has_are_told_once_and_the_picture_is_drawn(tmp_path, capsys):
    path = write_coco(
        tmp_path,
        [annotation([10, 10, 50, 50])],
        categories=[{"id": 10, "name": "\N{RUNIC LETTER ANSUZ A}\u0007b"}],
    )
    assert (
        main(["demo", "--coco", str(path), "--out", str(tmp_path), "--preset", "seed", "--preset", "yolox"])
        == 0
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "no installed font has \N{RUNIC LETTER ANSUZ A}: pictures show squares there; install one that does"
        in line
    )
    assert len(list(tmp_path.glob("*.png"))) == 2
