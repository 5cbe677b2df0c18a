"""The matching stage against answers worked out by hand, and what it asks of a GPU."""

import math
import re
from fractions import Fraction

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from simota_triton import SimOTAAssigner, dynamic_k_matching, matching, priors
from simota_triton.backends.torch_pruned import grid
from simota_triton.matching import count_k, key_index, pack_key, sortable
from simota_triton.verification.scenes import make_scene

INF = float("inf")
DTYPES = (torch.float32, torch.float64)


def matched(cost, iou, dtype=torch.float32, **options):
    """Answer of one image as lists: gt and IoU of each prior, k of each gt, claims of each prior."""
    result = dynamic_k_matching(
        torch.tensor([cost], dtype=dtype), torch.tensor([iou], dtype=dtype), **options
    )
    return tuple(field[0].tolist() for field in result[:4])


def constant_iou(cost, value=0.1):
    return [[value] * len(row) for row in cost]


# dynamic k


@pytest.mark.parametrize(
    ("iou", "k"),
    [
        ([0.9, 0.9, 0.3, 0.0], 2),  # 2.1
        ([0.5, 0.5, 0.0, 0.0], 1),  # exactly 1
        ([0.5, 0.5, 0.5, 0.5], 2),  # exactly 2
        ([0.5, 0.5, 0.5, 0.4999], 1),
        ([0.0, 0.0, 0.0, 0.0], 1),  # at least one
        ([-1.0, -1.0, -1.0, 0.9], 1),  # what does not count, does not count negatively
        ([-1.0, 1.0, 1.0, -1.0], 2),
        ([1.0, 1.0, 1.0, 1.0], 4),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_k_is_the_floor_of_the_sum_of_ious(iou, k, dtype):
    index, _, ks, claims = matched([[4.0, 3.0, 2.0, 1.0]], [iou], dtype)
    assert ks == [k]
    assert index == [-1] * (4 - k) + [0] * k
    assert claims == [0] * (4 - k) + [1] * k


@pytest.mark.parametrize(("topk", "k"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (6, 4), (32, 4)])
def test_only_the_largest_ious_are_summed(topk, k):
    assert matched([[float(i) for i in range(6)]], [[0.1, 0.9, 0.7, 0.9, 0.8, 0.75]], candidate_topk=topk)[
        2
    ] == [k]


@pytest.mark.parametrize(("scale", "k"), [(0.5, 2), (1.0, 4), (1.1, 4), (1.25, 5), (0.01, 1)])
def test_k_scale_multiplies_the_sum_before_it_is_floored(scale, k):
    cost, iou = [[float(i) for i in range(8)]], [[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]
    index, _, ks, _ = matched(cost, iou, candidate_topk=5, k_scale=scale)
    assert ks == [k]
    assert index == [0] * k + [-1] * (8 - k)


def test_the_sum_is_taken_in_float64_of_the_ious():
    below = 1 - 2.0**-24  # the largest float32 below 1: 8 + below rounds to 9 in float32
    assert matched([[float(i) for i in range(9)]], [[1.0] * 8 + [below]])[2] == [8]
    assert count_k(
        torch.tensor([[0.0], [0.999999], [1.0], [12.9999999], [13.0]], dtype=torch.float64)
    ).tolist() == [1, 1, 1, 12, 13]


@pytest.mark.parametrize("k_scale", [1.0, 0.7, 1.1, 0.3, 0.01, 1.6, 32.0])
def test_integers_give_the_k_of_float64_where_there_is_none(k_scale, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    width = min(20, int(32 / k_scale))
    iou = torch.rand(20000, width, generator=generator)
    iou[:5000] = (iou[:5000] * 10).round() / 10  # sums near integers
    iou[5000:9000] = 1 - iou[5000:9000] * 2.0 ** -torch.randint(26, (4000, width), generator=generator)
    iou[9000:12000] *= 2.0 ** -torch.randint(25, (3000, width), generator=generator)
    least = torch.rand(2000, 1, generator=generator) * 2.0 ** -torch.randint(
        20, (2000, 1), generator=generator
    )
    iou[12000:14000, : width // 2 * 2 : 2], iou[12000:14000, 1::2] = (
        1 - least,
        (1 - (1 - least)).expand(-1, width // 2),
    )
    iou[14000:15000] = iou[14000:15000].round()
    iou[15000:16000] = -1.0
    if width > 2:  # sums a little below 2
        iou[16000:17000] = 0.0
        iou[16000:17000, 0], iou[16000:17000, 1] = 1.0, 1 - 2.0**-24
        iou[16000:17000, 2] = 2.0**-24 * (1 - 2.0 ** -torch.randint(1, 20, (1000,), generator=generator))
    expected = count_k(iou, k_scale)
    exact = [
        max(1, math.floor(float(sum(map(Fraction, row))) * k_scale))
        for row in iou.clamp(min=0)[::100].tolist()
    ]
    assert expected[::100].tolist() == exact
    monkeypatch.setattr(matching, "has_float64", lambda device: False)
    assert torch.equal(count_k(iou, k_scale), expected)


@pytest.mark.parametrize("preset", ["rtmdet", "yolox", "super_gradients_fast"])
@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_no_float64_is_made_where_there_is_none(backend, preset, monkeypatch):
    scene, assigner = make_scene(1), SimOTAAssigner(preset, backend=backend)
    expected = scene.call(assigner)
    for module in (matching, grid):
        monkeypatch.setattr(module, "has_float64", lambda device: False)
    monkeypatch.setattr(priors, "_KNOWN", {})
    with Refuse(lambda function, result: isinstance(result, torch.Tensor) and result.dtype == torch.float64):
        found = scene.call(assigner)
    assert torch.equal(found.gt_index, expected.gt_index)
    assert torch.equal(found.dynamic_k, expected.dynamic_k)


class Refuse(TorchDispatchMode):
    """Fails where an operator's result is refused."""

    def __init__(self, refused):
        super().__init__()
        self.refused = refused

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        assert not self.refused(function, result), function
        return result


def test_a_gt_with_fewer_candidates_than_k_takes_all_of_them():
    index, _, ks, claims = matched([[INF, 5.0, INF, 2.0, INF]], [[1.0, 1.0, 1.0, 1.0, 1.0]])
    assert (index, ks, claims) == ([-1, 0, -1, 0, -1], [5], [0, 1, 0, 1, 0])


def test_a_gt_without_a_candidate_asks_for_one_and_gets_none():
    index, iou, ks, _ = matched([[INF, INF], [1.0, 2.0]], [[0.9, 0.9], [0.6, 0.5]])
    assert (index, ks) == ([1, -1], [1, 1])
    assert iou == pytest.approx([0.6, 0.0])


# selection


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_cheapest_priors_are_taken(dtype):
    cost = [[7.0, -1.0, 3.0, 0.0, -8.0, 5.0]]
    assert matched(cost, [[0.5] * 6], dtype)[0] == [-1, 0, -1, 0, 0, -1]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [5, 40, 3000])
def test_equal_costs_go_to_the_lowest_priors(dtype, count):
    cost, iou = torch.zeros(1, 1, count, dtype=dtype), torch.full((1, 1, count), 0.99, dtype=dtype)
    index = dynamic_k_matching(cost, iou, candidate_topk=13).gt_index[0]
    k = min(13, count) * 99 // 100
    assert index.tolist() == [0] * k + [-1] * (count - k)


def test_keys_keep_the_order_of_costs():
    keys = sortable(torch.tensor([-INF, -3e38, -1.0, -1e-45, 0.0, 1e-45, 1.0, 3e38, INF])).tolist()
    assert keys == sorted(set(keys))


@pytest.mark.parametrize("dtype", DTYPES)
def test_minus_zero_costs_as_much_as_zero(dtype):
    assert matched([[0.0, -0.0, 0.0]], [[0.5, 0.5, 0.5]], dtype)[0] == [0, -1, -1]


def test_keys_rank_by_cost_then_index():
    cost = torch.tensor([1.0, 1.0, -2.0, 3e38, -0.5, 1.0])
    keys = pack_key(cost, torch.tensor([9, 2, 5, 0, 1 << 31, 4]))
    assert key_index(keys.sort().values).tolist() == [5, 1 << 31, 2, 4, 9, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_penalty_beyond_the_range_is_still_selectable_and_infinity_is_not(dtype):
    assert matched([[3e38, INF, 3e38]], [[1.0, 1.0, 1.0]], dtype)[0] == [0, -1, 0]


# conflicts

# gts 0 and 1 select prior 0, gt 2 takes prior 1
DISPUTED = [
    [5.0, 9.0, 9.5],
    [6.0, 9.0, 9.5],
    [4.0, 1.0, 9.5],
]
DISPUTED_IOU = [[0.3, 0.0, 0.0], [0.5, 0.0, 0.0], [0.2, 0.8, 0.0]]


@pytest.mark.parametrize(
    ("conflict", "winner", "iou"), [("all", 2, 0.2), ("matched", 0, 0.3), ("max_iou", 1, 0.5)]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_disputed_prior_goes_to_one_gt_by_the_rule(conflict, winner, iou, dtype):
    index, matched_iou, ks, claims = matched(DISPUTED, DISPUTED_IOU, dtype, conflict=conflict)
    assert index == [winner, 2, -1]
    assert matched_iou == pytest.approx([iou, 0.8, 0.0])
    assert (ks, claims) == ([1, 1, 1], [2, 1, 0])


def test_the_gt_that_loses_a_prior_gets_no_other():
    index, _, ks, _ = matched([[1.0, 2.0, 3.0], [0.5, 2.5, 3.0]], [[0.4, 0.4, 0.4], [0.4, 0.4, 0.4]])
    assert (index, ks) == ([1, -1, -1], [1, 1])


def test_a_prior_selected_once_stays_with_that_gt_however_cheap_it_is_for_others():
    index, _, _, claims = matched([[1.0, 9.0], [0.5, 0.1]], constant_iou([[0, 0], [0, 0]]))
    # prior 0 costs gt 1 less than gt 0, but gt 1 did not select it
    assert (index, claims) == (
        [0, 1],
        [1, 1],
    )


@pytest.mark.parametrize("conflict", ["all", "matched", "max_iou"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_claims_go_to_the_lowest_gt(conflict, dtype):
    cost = [[3.0, 1.0], [2.0, 7.0], [2.0, 7.0], [2.0, 7.0]]
    iou = [[0.1, 0.2], [0.4, 0.1], [0.4, 0.1], [0.4, 0.1]]
    assert matched(cost, iou, dtype, conflict=conflict)[0] == [1, 0]


def test_the_largest_iou_is_sought_among_gts_that_may_take_the_prior():
    cost, iou = [[1.0, 9.0], [2.0, 9.0], [INF, 9.0]], [[0.2, 0.0], [0.3, 0.0], [0.9, 0.0]]
    assert matched(cost, iou, conflict="max_iou")[0] == [1, 2]


def test_the_smallest_of_all_costs_ignores_gts_that_may_not_take_the_prior():
    cost = [[2.0, 9.0], [1.5, 9.0], [INF, 0.0]]
    assert matched(cost, constant_iou(cost))[0] == [1, 2]


def test_images_do_not_mix():
    cost = torch.tensor([[[1.0, 2.0]], [[2.0, 1.0]], [[INF, INF]]])
    result = dynamic_k_matching(cost, torch.full_like(cost, 0.5))
    assert result.gt_index.tolist() == [[0, -1], [-1, 0], [-1, -1]]
    assert result.claims.tolist() == [[1, 0], [0, 1], [0, 0]]


# padding and empty sizes


@pytest.mark.parametrize("conflict", ["all", "matched", "max_iou"])
def test_padding_takes_no_part(conflict):
    cost, iou = torch.tensor([[*DISPUTED, [INF] * 3]]), torch.tensor([[*DISPUTED_IOU, [0.9] * 3]])
    plain = dynamic_k_matching(cost[:, :3], iou[:, :3], conflict=conflict)
    padded = dynamic_k_matching(
        cost, iou, gt_mask=torch.tensor([[True, True, True, False]]), conflict=conflict
    )
    assert padded.dynamic_k.tolist() == [[1, 1, 1, 0]]
    for name in ("gt_index", "matched_iou", "claims"):
        assert torch.equal(getattr(plain, name), getattr(padded, name))


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 0, 5), (2, 3, 0), (0, 0, 0)])
def test_zero_sizes_give_background(shape):
    batch, gts, priors = shape
    result = dynamic_k_matching(torch.zeros(shape), torch.zeros(shape))
    assert result.gt_index.tolist() == [[-1] * priors] * batch
    assert result.matched_iou.tolist() == [[0.0] * priors] * batch
    assert result.claims.tolist() == [[0] * priors] * batch
    assert result.dynamic_k.tolist() == [[1] * gts] * batch
    masked = dynamic_k_matching(
        torch.zeros(shape), torch.zeros(shape), gt_mask=torch.zeros(shape[:2], dtype=torch.bool)
    )
    assert masked.dynamic_k.tolist() == [[0] * gts] * batch


def test_dtypes_of_the_answer():
    for result in (
        dynamic_k_matching(torch.ones(1, 2, 3), torch.ones(1, 2, 3)),
        dynamic_k_matching(torch.ones(1, 0, 3), torch.ones(1, 0, 3)),
    ):
        assert result.labels is None
        assert [field.dtype for field in result[:4]] == [torch.int64, torch.float32, torch.int64, torch.int32]


# refusals


def test_wrong_input_is_refused():
    good = torch.ones(1, 2, 3)
    with pytest.raises(
        ValueError, match=r"cost, iou: expected two \[B, G, P\] of one shape, got \[1, 2, 3\] and \[1, 2, 4\]"
    ):
        dynamic_k_matching(good, torch.ones(1, 2, 4))
    with pytest.raises(ValueError, match=r"cost, iou: expected two \[B, G, P\]"):
        dynamic_k_matching(good[0], good[0])
    with pytest.raises(
        ValueError, match="conflict: expected one of 'all', 'matched', 'max_iou', got 'first'"
    ):
        dynamic_k_matching(good, good, conflict="first")
    with pytest.raises(ValueError, match=r"cost: expected numbers or \+inf, got NaN; put \+inf"):
        dynamic_k_matching(torch.tensor([[[1.0, float("nan")]]]), torch.ones(1, 1, 2))
    with pytest.raises(ValueError, match=r"iou: expected numbers, got NaN; put -1"):
        dynamic_k_matching(torch.ones(1, 1, 2), torch.tensor([[[1.0, float("nan")]]]))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"cost": [[[1.0, 2.0, 3.0]] * 2]}, TypeError, "cost: expected a torch.Tensor, got list; use "
                                                       "torch.tensor(cost)"),
        ({"iou": torch.ones(1, 2, 3).long()}, ValueError, "iou: expected a floating dtype"),
        ({"cost": torch.ones(2, 3), "iou": torch.ones(2, 3)}, ValueError, "cost, iou: expected two [B, G, "
                                                                          "P] of one shape, got [2, 3] and"),
        ({"iou": torch.ones(1, 2, 3, device="meta")}, ValueError, "iou: expected device cpu, as cost, got "
                                                                  "meta; use iou.to(cost.device)"),
        ({"gt_mask": [[True, True]]}, TypeError, "gt_mask: expected a torch.Tensor, got list"),
        ({"gt_mask": torch.ones(2, 2, dtype=torch.bool)}, ValueError, "gt_mask: expected [B, G] = [1, 2], "
                                                                      "as cost, got [2, 2]"),
        ({"gt_mask": torch.ones(1, 2)}, ValueError, "gt_mask: expected torch.bool, True for real gts, got "
                                                    "torch.float32"),
        ({"gt_mask": torch.ones(1, 2, dtype=torch.bool, device="meta")}, ValueError, "gt_mask: expected "
                                                                                     "device cpu, as cost, "
                                                                                     "got meta"),
        ({"candidate_topk": 0}, ValueError, "candidate_topk: expected 1 to 32, got 0"),
        ({"candidate_topk": 33}, ValueError, "candidate_topk: expected 1 to 32, got 33"),
        ({"k_scale": 0.0}, ValueError, "k_scale: expected a finite number above 0, got 0.0"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(changes, error, message):
    arguments = {"cost": torch.ones(1, 2, 3), "iou": torch.ones(1, 2, 3)}
    dynamic_k_matching(**arguments)
    with pytest.raises(error, match="^" + re.escape(message)):
        dynamic_k_matching(**{**arguments, **changes})


# what it asks of a GPU: meta tensors refuse to be read on the host, the mode looks for what they let through


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        self.names.append(name)
        if name.startswith(
            "aten.index"
        ):  # a boolean index is turned into indices, whose number the host waits for
            indices = args[1] if isinstance(args[1], (list, tuple)) else []
            assert all(index is None or index.dtype != torch.bool for index in indices), name
        return function(*args, **(kwargs or {}))


WAITS = (
    "aten._local_scalar_dense",
    "aten.item",
    "aten.nonzero",
    "aten.masked_select",
    "aten._unique",
    "aten.unique",
    "aten.repeat_interleave.Tensor",
)


def operations(batch, gts, priors, conflict):
    cost = torch.empty(batch, gts, priors, device="meta")
    mask = torch.empty(batch, gts, dtype=torch.bool, device="meta")
    with Operations() as operations:
        dynamic_k_matching(cost, cost.clone(), gt_mask=mask, conflict=conflict)
    return operations.names


@pytest.mark.parametrize("conflict", ["all", "matched", "max_iou"])
def test_it_never_waits_for_the_device_nor_loops_over_images_or_gts(conflict):
    small, large = operations(2, 3, 50, conflict), operations(32, 100, 8400, conflict)
    assert not [name for name in large if name.startswith(WAITS)]
    assert small == large
    assert len(large) < 100


def test_the_watch_sees_what_would_wait():
    values = torch.empty(3, device="meta")
    with Operations(), pytest.raises(AssertionError, match="index_put"):
        values[values > 0] = values[0]
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(values.isnan().any())
    with pytest.raises(NotImplementedError):
        values.nonzero()
