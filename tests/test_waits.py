"""Nobody waits for a GPU during a call: tested on tensors that have a GPU's device and no values."""

import contextlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from simota_triton import SimOTAAssigner, backends, topk_matching
from simota_triton.assigners import assigner_of
from simota_triton.backends.known import config_of
from simota_triton.config import TAL_CONFLICTS
from simota_triton.inputs import pack
from simota_triton.matching import Matching, dynamic_k_matching

B, P, C, G = 3, 40, 5, 4
CUDA = torch.device("cuda", 0)
READ_BACK = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "equal",
    "is_nonzero",
    "item",
    "bincount",
    "repeat_interleave",
)


class NobodyWaits(TorchDispatchMode):
    """Fails where the host would wait for the GPU: a value is read back, or copied to or from memory that is
    not pinned.
    """

    def __init__(self):
        super().__init__()
        self.pinned, self.copies = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        assert name not in READ_BACK or all(value.device.type == "cpu" for value in tensors), (
            f"{name} reads a value back"
        )
        if name in ("pin_memory", "_pin_memory"):
            self.pinned.append(args[0].clone())
            return self.pinned[-1]
        if name.startswith("index"):
            indices = [
                value
                for part in args
                if isinstance(part, (list, tuple))
                for value in part
                if value is not None
            ]
            assert all(value.dtype not in (torch.bool, torch.uint8) for value in indices), (
                f"{name} by a mask reads its size back"
            )
        result = function(*args, **kwargs)
        if name in ("_to_copy", "copy_", "to"):
            self._copied(args, kwargs, result)
        return result

    def _copied(self, args, kwargs, result):
        source = args[1] if len(args) > 1 and isinstance(args[1], torch.Tensor) else args[0]
        if source.device.type == result.device.type:
            return
        self.copies += 1
        flags = [value for value in (*args[1:], kwargs.get("non_blocking")) if isinstance(value, bool)]
        assert any(flags), "a copy between host and GPU that blocks"
        assert any(source is value for value in self.pinned), "a copy from memory that is not pinned"


class IndexedByOperators(TorchFunctionMode):
    """Indexing by operators: a tensor's brackets would ask for CUDA, which need not be there."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not torch.Tensor.__getitem__:
            return function(*args, **(kwargs or {}))
        value, key = args
        key = key if isinstance(key, tuple) else (key,)
        dim, tensors = 0, []
        for place, part in enumerate(key):
            if part is Ellipsis:
                dim = value.ndim - sum(other is not None for other in key[place + 1 :])
            elif isinstance(part, int):
                value = value.select(dim, part)
            elif part is None:
                value, dim = value.unsqueeze(dim), dim + 1
            elif isinstance(part, slice):
                value, dim = (
                    torch.ops.aten.slice.Tensor(value, dim, part.start, part.stop, part.step or 1),
                    dim + 1,
                )
            else:
                tensors += [None] * (dim - len(tensors)) + [part]
                dim += 1
        return torch.ops.aten.index.Tensor(value, tensors) if tensors else value


@contextlib.contextmanager
def gpu_without_values():
    """Tensors on a GPU that is not there; gives the mode that watches for waits."""
    with FakeTensorMode(allow_non_fake_inputs=True), NobodyWaits() as mode, IndexedByOperators():
        yield mode


def fake(shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device=CUDA)


def padded():
    return fake((B, G, 4)), fake((B, G), torch.int64), {"gt_mask": fake((B, G), torch.bool)}


def listed():
    return [fake((n, 4)) for n in (2, 0, 3)], [fake((n,), torch.int64) for n in (2, 0, 3)], {}


def packed():
    return fake((5, 4)), fake((5,), torch.int64), {"gt_offsets": fake((B + 1,), torch.int64)}


def packed_by_the_host():
    with torch._subclasses.fake_tensor.unset_fake_temporarily():
        offsets = torch.tensor([0, 2, 2, 5], dtype=torch.int32)
    return fake((5, 4)), fake((5,), torch.int64), {"gt_offsets": offsets}


FORMS = pytest.mark.parametrize(
    ("form", "copies"), [(padded, 0), (listed, 1), (packed, 0), (packed_by_the_host, 1)]
)


@pytest.fixture
def capturing(monkeypatch):
    """Whether a CUDA graph is being captured, which torch cannot say without CUDA."""
    state = [False]
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: state[0])
    return state


@pytest.fixture
def gpu(monkeypatch):
    """A stand-in for the backend: it writes what a backend writes."""

    def assign(name, problem, config, kernels=None):
        shape = problem.sanitised().shape[:2]
        per_gt = problem.gts.padded_shape or problem.gts.boxes.shape[:1]
        scores = fake(shape) if config.rule == "task_aligned" else None
        claims = fake(shape, torch.int32)
        return Matching(
            fake(shape, torch.int64), fake(shape), fake(per_gt, torch.int64), claims, scores=scores
        )

    monkeypatch.setattr(backends, "assign", assign)


CALLS = [
    (preset, name)
    for name in ("triton", "triton-stream")
    for preset in ("rtmdet", "yolox", "seed", "tal", "tood", "yolo9_mit")
    if config_of(preset).variety in backends.BACKENDS[name].load
]


@FORMS
@pytest.mark.parametrize(("preset", "backend"), CALLS)
def test_no_form_of_gts_makes_the_host_wait(preset, backend, form, copies, gpu, capturing, monkeypatch):
    assigner = assigner_of(config_of(preset), backend=backend)
    with gpu_without_values() as mode:
        boxes, labels, options = form()
        if preset == "yolox":
            options["obj_logits"] = fake((B, P, 1))
        if preset in ("yolox", "tood"):
            options.update(
                candidate_mask=fake((B, P), torch.bool), ignore_boxes=[fake((n, 4)) for n in (0, 1, 2)]
            )
        priors = fake((P, 3) if assigner.config.asks_for_strides else (P, 2))
        result = assigner(fake((B, P, 4)), fake((B, P, C)), priors, boxes, labels, **options)
        _ = (
            result.target_scores(),
            result.target_scores(fake((B, P, C), torch.float16)),
            result.fg_mask,
            result.num_pos,
            result.gt_boxes,
            result.labels,
            result.ignore_mask,
            result.num_refused,
        )
    assert result.labels.device == CUDA
    assert mode.copies == copies


@FORMS
def test_costs_and_masks_of_pairs_do_not_make_the_host_wait(form, copies, gpu, capturing):
    with gpu_without_values() as mode:
        boxes, labels, options = form()
        pairs = (
            [fake((*t.shape, P)) for t in labels] if isinstance(labels, list) else fake((*labels.shape, P))
        )
        mask = [t > 0 for t in pairs] if isinstance(pairs, list) else pairs > 0
        call = (fake((B, P, 4)), fake((B, P, C)), fake((P, 3)), boxes, labels)
        SimOTAAssigner("rtmdet", backend="triton")(*call, extra_cost=pairs, pair_mask=mask, **options)
    assert mode.copies == copies


@FORMS
def test_the_matching_does_not_make_the_host_wait(form, copies, capturing):
    with gpu_without_values():
        boxes, labels, options = form()
        gts = pack(
            SimOTAAssigner("rtmdet").config,
            fake((B, P, 4)),
            fake((B, P, C)),
            fake((P, 3)),
            boxes,
            labels,
            **options,
        ).gts
        mask = fake((B, G), torch.bool)
        for conflict, least in (("all", 0), ("matched", 2), ("max_iou", 0)):
            matching = dynamic_k_matching(
                fake((B, G, P)),
                fake((B, G, P)),
                gt_mask=mask,
                k_scale=1.1,
                conflict=conflict,
                min_positives=least,
            )
            assert gts.unpad(matching.dynamic_k).device == CUDA


@pytest.mark.parametrize("conflict", TAL_CONFLICTS)
def test_the_matching_of_the_task_aligned_rule_does_not_make_the_host_wait(conflict, capturing):
    with gpu_without_values():
        for pool, topk2, least in (("inside", None, False), ("all", 1, True)):
            matching = topk_matching(
                fake((B, G, P)),
                fake((B, G, P)),
                fake((B, G, P), torch.bool),
                gt_mask=fake((B, G), torch.bool),
                topk2=topk2,
                pool=pool,
                at_least_one=least,
                conflict=conflict,
            )
            assert matching.scores.device == CUDA


@FORMS
def test_a_graph_cannot_hold_sizes_that_the_host_knows(form, copies, gpu, capturing):
    capturing[0] = True
    with gpu_without_values():
        boxes, labels, options = form()
        call = (fake((B, P, 4)), fake((B, P, C)), fake((P, 3)), boxes, labels)
        assigner = SimOTAAssigner("rtmdet", backend="triton-stream")
        if not copies:
            assigner(*call, **options)
            return
        with pytest.raises(
            ValueError,
            match="gt_boxes: expected padded gts, or packed ones with gt_offsets on the device, while a "
            "CUDA graph",
        ):
            assigner(*call, **options)


def test_the_mode_finds_what_waits():
    with gpu_without_values():
        host, values, mask = torch.zeros(3, dtype=torch.int64), fake((3,)), fake((3,), torch.bool)
        aten = torch.ops.aten
        for blocks in (
            lambda: host.to(CUDA),
            lambda: host.to(CUDA, non_blocking=True),
            lambda: aten.copy_(values, host),
        ):
            with pytest.raises(AssertionError, match="a copy"):
                blocks()
        for reads in (lambda: fake((1,)).item(), lambda: aten.nonzero(mask), lambda: values[mask]):
            with pytest.raises(AssertionError, match="back"):
                reads()
        host.pin_memory().to(CUDA, non_blocking=True)
