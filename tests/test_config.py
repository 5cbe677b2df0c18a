"""The configuration: presets, derived values, identity, and what it refuses."""

import dataclasses
import pickle
import re

import pytest

from simota_triton import SimOTAConfig
from simota_triton.config import MAX_TOPK, PRESETS

EXPECTED = {  # every field in which a preset differs from the defaults, which are mmdet's SimOTAAssigner
    "seed": {
        "candidate": "all",
        "eligible": "all",
        "score": "logit",
        "cls_cost": "soft_bce",
        "cls_classes": "gt",
        "log_eps": 1e-10,
        "union_rule": "none",
        "center_weight": 1.0,
        "candidate_topk": 13,
        "conflict": "max_iou",
        "prior_offset": 0.0,
    },
    "rtmdet": {
        "candidate": "box",
        "eligible": "all",
        "score": "logit",
        "cls_cost": "soft_bce",
        "center_weight": 1.0,
        "candidate_topk": 13,
        "prior_offset": 0.0,
    },
    "rtmdet_mmyolo": {
        "candidate": "box",
        "eligible": "all",
        "score": "logit",
        "cls_cost": "soft_bce",
        "cls_classes": "gt",
        "center_weight": 1.0,
        "candidate_topk": 13,
        "k_pool": "all",
        "prior_offset": 0.0,
    },
    "libre_rtmdet": {
        "candidate": "box",
        "eligible": "all",
        "score": "logit",
        "cls_cost": "soft_bce",
        "center_weight": 1.0,
        "candidate_topk": 13,
        "union_eps": 1e-7,
        "prior_offset": 0.0,
    },
    "nanodet": {
        "candidate": "box",
        "eligible": "all",
        "score": "logit",
        "cls_cost": "soft_bce",
        "candidate_topk": 13,
        "prior_offset": 0.0,
    },
    "damo": {"score": "sigmoid", "cls_cost": "soft_bce", "penalty": 1e8, "prior_offset": 0.0},
    "yolox": {"union_rule": "none", "log_eps": 1e-8},
    "yolox_main": {
        "candidate": "center",
        "eligible": "center",
        "center_radius": 1.5,
        "penalty": 1e6,
        "union_rule": "none",
        "log_eps": 1e-8,
    },
    "mmdet_simota": {},
    "super_gradients": {"union_rule": "add", "union_eps": 1e-9, "log_eps": 1e-8},
    "super_gradients_fast": {
        "union_rule": "none",
        "log_eps": 1e-8,
        "own_pairs_only": True,
        "k_scale": 1.1,
        "conflict": "matched",
    },
    "picodet": {"score": "sigmoid", "cls_cost": "vfl", "iou_cost": "giou", "iou_weight": 6.0, "penalty": 1e8},
    "picodet_lightly": {
        "score": "sigmoid",
        "cls_cost": "vfl",
        "prob_clamp": 1e-7,
        "iou_cost": "giou",
        "iou_weight": 6.0,
        "penalty": 1e8,
        "conflict": "matched",
    },
    "picodet_libre": {
        "score": "sigmoid",
        "prob_clamp": 1e-7,
        "iou_weight": 6.0,
        "log_eps": 1e-8,
        "union_rule": "add",
        "union_eps": 1e-16,
    },
}


def fields(config):
    return {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name != "preset"
    }


def test_the_defaults_are_mmdets():
    assert fields(SimOTAConfig()) == {
        "candidate": "box_or_center",
        "eligible": "box_and_center",
        "center_radius": 2.5,
        "penalty": 1e5,
        "own_pairs_only": False,
        "score": "joint",
        "cls_cost": "bce",
        "cls_classes": "all",
        "cls_weight": 1.0,
        "prob_clamp": 0.0,
        "iou_cost": "log",
        "iou_weight": 3.0,
        "log_eps": 1e-7,
        "union_rule": "max",
        "union_eps": 1e-6,
        "center_weight": 0.0,
        "center_base": 10.0,
        "center_offset": 3.0,
        "candidate_topk": 10,
        "k_pool": "candidates",
        "k_scale": 1.0,
        "conflict": "all",
        "min_positives": 0,
        "prior_offset": 0.5,
    }


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_original_and_says_which_that_is(name):
    assert fields(SimOTAConfig.from_preset(name)) == {**fields(SimOTAConfig()), **EXPECTED[name]}
    assert getattr(SimOTAConfig, name)() == SimOTAConfig.from_preset(name)
    # a version, a commit or a year
    assert re.search(r"\d+\.\d+\.\d+|[0-9a-f]{7}|20\d\d", getattr(SimOTAConfig, name).__doc__)


def test_presets_are_listed():
    assert SimOTAConfig.presets() == PRESETS == tuple(EXPECTED)


@pytest.mark.parametrize("name", PRESETS)
def test_repr_builds_the_configuration_again(name):
    for config in (
        SimOTAConfig.from_preset(name),
        SimOTAConfig.from_preset(name, candidate_topk=7, center_radius=1.25),
    ):
        assert eval(repr(config)) == config
    assert repr(SimOTAConfig.from_preset(name)) == f"SimOTAConfig.{name}()"


def test_repr_without_a_preset():
    assert repr(SimOTAConfig()) == "SimOTAConfig()"
    assert repr(SimOTAConfig(k_scale=0.5)) == "SimOTAConfig(k_scale=0.5)"
    assert repr(SimOTAConfig.rtmdet().replace(candidate_topk=9)) == "SimOTAConfig.rtmdet(candidate_topk=9)"


def test_a_preset_is_known_by_its_values_not_its_name():
    assert SimOTAConfig.mmdet_simota() == SimOTAConfig()
    assert hash(SimOTAConfig.mmdet_simota()) == hash(SimOTAConfig())
    assert SimOTAConfig.rtmdet(union_eps=1e-7) == SimOTAConfig.libre_rtmdet()
    assert SimOTAConfig.rtmdet() != SimOTAConfig.nanodet()


def test_it_is_frozen_and_survives_pickling():
    config = SimOTAConfig.yolox(candidate_topk=5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.penalty = 1.0
    again = pickle.loads(pickle.dumps(config))
    assert (again, again.preset) == (config, "yolox")


def test_replace_changes_a_copy_and_validates_it():
    config = SimOTAConfig.yolox()
    assert config.replace(penalty=7).penalty == 7.0
    assert config.penalty == 1e5
    with pytest.raises(ValueError, match="penalty"):
        config.replace(penalty=-1)


def test_integers_are_taken_for_numbers():
    config = SimOTAConfig(iou_weight=3, penalty=100000)
    assert config == SimOTAConfig()
    assert isinstance(config.iou_weight, float)


@pytest.mark.parametrize(
    ("topk", "scale", "most"),
    [(1, 1.0, 1), (13, 1.0, 13), (10, 1.1, 11), (13, 1.1, 14), (10, 0.05, 1), (32, 1.0, 32), (20, 1.6, 32)],
)
def test_the_largest_possible_dynamic_k(topk, scale, most):
    assert SimOTAConfig(candidate_topk=topk, k_scale=scale).max_dynamic_k == most <= MAX_TOPK


CHOICES = [
    "candidate",
    "eligible",
    "score",
    "cls_cost",
    "cls_classes",
    "iou_cost",
    "union_rule",
    "k_pool",
    "conflict",
]
NON_NEGATIVE = ["penalty", "cls_weight", "iou_weight", "union_eps", "center_weight", "prob_clamp"]
POSITIVE = ["center_radius", "log_eps", "center_base", "k_scale"]
NUMBERS = [*NON_NEGATIVE, *POSITIVE, "center_offset"]

REFUSED = [
    *((ValueError, {name: "boxy"}, f"{name}: expected one of '.*', got 'boxy'") for name in CHOICES),
    *(
        (TypeError, {name: None}, f"{name}: expected one of '.*', got None of type NoneType")
        for name in CHOICES
    ),
    *((ValueError, {name: -0.1}, f"{name}: expected a number >= 0, got -0.1") for name in NON_NEGATIVE),
    *((ValueError, {name: 0}, f"{name}: expected a number > 0, got 0") for name in POSITIVE),
    *((ValueError, {name: float("nan")}, f"{name}: expected a finite number, got nan") for name in NUMBERS),
    *((ValueError, {name: float("inf")}, f"{name}: expected a finite number, got inf") for name in NUMBERS),
    *((TypeError, {name: "3"}, f"{name}: expected a number, got '3' of type str") for name in NUMBERS),
    *(
        (
            ValueError,
            {name: 1e39},
            f"{name}: expected 0 or a size that float32 holds, 1.2e-38 to 3.4e38, got 1e.39",
        )
        for name in NUMBERS
    ),
    *(
        (
            ValueError,
            {name: 1e-39},
            f"{name}: expected 0 or a size that float32 holds, 1.2e-38 to 3.4e38, got 1e-39",
        )
        for name in NUMBERS
    ),
    (TypeError, {"iou_weight": True}, "iou_weight: expected a number, got True of type bool"),
    (TypeError, {"own_pairs_only": 1}, "own_pairs_only: expected True or False, got 1"),
    (TypeError, {"own_pairs_only": None}, "own_pairs_only: expected True or False, got None"),
    (TypeError, {"candidate_topk": 10.0}, "candidate_topk: expected an integer, got 10.0"),
    (TypeError, {"candidate_topk": True}, "candidate_topk: expected an integer, got True"),
    (ValueError, {"candidate_topk": 0}, "candidate_topk: expected 1 to 32, got 0"),
    (ValueError, {"candidate_topk": 33}, "candidate_topk: expected 1 to 32, got 33"),
    (TypeError, {"min_positives": 1.0}, "min_positives: expected an integer, got 1.0"),
    (TypeError, {"min_positives": True}, "min_positives: expected an integer, got True"),
    (ValueError, {"min_positives": -1}, "min_positives: expected 0 to 32, got -1"),
    (ValueError, {"min_positives": 33}, "min_positives: expected 0 to 32, got 33"),
    (
        ValueError,
        {"candidate_topk": 30, "k_scale": 1.2},
        r"k_scale: expected candidate_topk \* k_scale <= 32, got 30 \* 1.2; lower one",
    ),
    (ValueError, {"center_base": 0.5}, "center_base: expected a number >= 1, got 0.5"),
    (ValueError, {"prob_clamp": 0.5}, r"prob_clamp: expected a number in \[0, 0.5\), got 0.5"),
    (ValueError, {"log_eps": 1.5}, r"log_eps: expected a number in \(0, 1\], got 1.5"),
    (ValueError, {"score": "logit", "cls_cost": "vfl"}, "cls_cost: 'vfl' works on probabilities; use"),
    (ValueError, {"score": "logit", "prob_clamp": 1e-3}, "prob_clamp: works on probabilities; use"),
    (
        ValueError,
        {"own_pairs_only": True, "k_pool": "all"},
        "k_pool: own_pairs_only takes the IoUs from the gt's own pairs; use",
    ),
]


@pytest.mark.parametrize(("error", "values", "message"), REFUSED)
def test_wrong_values_are_refused_by_name(error, values, message):
    with pytest.raises(error, match=message):
        SimOTAConfig(**values)


@pytest.mark.parametrize(
    ("error", "call", "message"),
    [
        (
            ValueError,
            lambda: SimOTAConfig.from_preset("yolo"),
            "preset: expected one of 'seed', 'rtmdet', .*, got 'yolo'",
        ),
        (
            ValueError,
            lambda: SimOTAConfig.from_preset("replace"),
            "preset: expected one of .*, got 'replace'",
        ),
        (TypeError, lambda: SimOTAConfig.from_preset(3), "preset: expected a name, one of .*, got int"),
        (
            TypeError,
            lambda: SimOTAConfig.from_preset("yolox", topk=3),
            "topk: no such field of SimOTAConfig; known fields: 'candidate'",
        ),
        (TypeError, lambda: SimOTAConfig.yolox(preset="rtmdet"), "preset: no such field of SimOTAConfig"),
        (TypeError, lambda: SimOTAConfig().replace(iou=2), "iou: no such field of SimOTAConfig"),
    ],
)
def test_wrong_names_are_refused(error, call, message):
    with pytest.raises(error, match=message):
        call()


def test_a_preset_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"^preset: expected None or one of 'seed'"):
        SimOTAConfig(preset="x")
