"""What is wrong is refused, with the argument's name, what was expected, what came, and the remedy."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import simota_triton
from simota_triton import (
    SimOTAAssigner,
    SimOTAConfig,
    TaskAlignedAssigner,
    TaskAlignedConfig,
    assign,
    convert_boxes,
    grid_priors,
    mask_centers,
    topk_matching,
)
from simota_triton.assigners import assigner_of
from simota_triton.backends import BACKENDS
from simota_triton.backends.known import config_of
from simota_triton.inputs import pack
from simota_triton.verification.scenes import make_scene
from tests.support.interpreter import QUICK

B, P, C, G = 2, 6, 3, 2
NAN, INF = float("nan"), float("inf")
META = torch.device("meta")
OFF = "cpu, as pred_boxes, got meta"


def inputs(form="padded", config="rtmdet"):
    """Valid arguments: an assigner's, and its configuration."""
    boxes = torch.tensor([[[0.0, 0.0, 20.0, 20.0], [10.0, 0.0, 40.0, 20.0]]]).repeat(B, 1, 1)
    labels = torch.tensor([[0, 2]]).repeat(B, 1)
    args = {
        "config": config,
        "pred_boxes": boxes[:, :1].repeat(1, P, 1),
        "cls_logits": torch.zeros(B, P, C),
        "priors": torch.tensor([[8.0 * i, 8.0, 8.0, 8.0] for i in range(1, P + 1)]),
    }
    if form == "padded":
        return {**args, "gt_boxes": boxes, "gt_labels": labels, "gt_mask": torch.ones(B, G, dtype=torch.bool)}
    if form == "list":
        return {**args, "gt_boxes": list(boxes), "gt_labels": list(labels)}
    return {
        **args,
        "gt_boxes": boxes.flatten(0, 1),
        "gt_labels": labels.flatten(),
        "gt_offsets": torch.tensor([0, G, 2 * G]),
    }


def with_value(name, place, value, form="padded"):
    """The argument ``name`` with one element changed."""
    changed = inputs(form)[name]
    if isinstance(changed, list):
        changed = [part.clone() for part in changed]
        changed[place[0]][place[1:]] = value
    else:
        changed = changed.clone()
        changed[place] = value
    return {name: changed}


def maps(*sizes, channels=C, batch=B, **options):
    return [torch.zeros(batch, channels, *size, **options) for size in sizes]


JOINT = "yolox"
OBJ = torch.zeros(B, P, 1)
LABELS = torch.zeros(B, G, dtype=torch.int64)
ANCHORS = torch.tensor([[8.0 * i, 0.0, 8.0 * i + 16, 16.0] for i in range(P)])
XYWH = torch.tensor(
    [[[8.0, 8.0, 4.0, 20.0], [10.0, 0.0, 40.0, 20.0]], [[30.0, 40.0, 20.0, 20.0], [9.0, 50.0, 20.0, 9.0]]]
)

BLANK = with_value("gt_boxes", (1, 1), 0.0)

CASES = [
    # predictions
    ("padded", {"pred_boxes": [[0.0] * 4]}, TypeError, "pred_boxes: expected a torch.Tensor, got list"),
    ("padded", {"pred_boxes": torch.zeros(P, 4)}, ValueError, "pred_boxes: expected [B, P, 4], got [6, 4]; add the batch dimension with pred_boxes[None]"),
    ("padded", {"pred_boxes": torch.zeros(B, 4, P)}, ValueError, "pred_boxes: expected [B, P, 4], got [2, 4, 6]"),
    ("padded", {"pred_boxes": torch.zeros(B, P, 4).long()}, ValueError, "pred_boxes: expected a floating dtype (float16, bfloat16, float32, float64), got torch.int64; use pred_boxes.float()"),
    ("padded", {"pred_boxes": torch.zeros(B, P, 4, dtype=torch.complex64)}, ValueError, "pred_boxes: expected a floating dtype"),
    ("padded", {"cls_logits": None}, TypeError, "cls_logits: expected a tensor [B, P, C] or a list of [B, C, H, W] maps, got NoneType"),
    ("padded", {"cls_logits": torch.zeros(P, C)}, ValueError, "cls_logits: expected [B, P, C] = [2, 6, C], got [6, 3]; or a list of [B, C, H, W] maps"),
    ("padded", {"cls_logits": torch.zeros(B, C, P)}, ValueError, "cls_logits: expected [B, P, C] = [2, 6, C], got [2, 3, 6]"),
    ("padded", {"cls_logits": torch.zeros(B + 1, P, C)}, ValueError, "cls_logits: expected [B, P, C] = [2, 6, C], got [3, 6, 3]"),
    ("padded", {"cls_logits": torch.zeros(B, P, 0)}, ValueError, "cls_logits: expected [B, P, C] with at least one class, got [2, 6, 0]"),
    ("padded", {"cls_logits": torch.zeros(B, P, C).int()}, ValueError, "cls_logits: expected a floating dtype (float16, bfloat16, float32, float64), got torch.int32; use cls_logits.float()"),
    ("padded", {"cls_logits": torch.zeros(B, P, C, device=META)}, ValueError, f"cls_logits: expected device {OFF}; use cls_logits.to(pred_boxes.device)"),
    ("padded", {"cls_logits": []}, ValueError, "cls_logits: expected levels with P = 6 cells in total, one prior a cell, got 0 cells in 0 levels"),
    ("padded", {"cls_logits": maps((2, 2), (1, 1))}, ValueError, "cls_logits: expected levels with P = 6 cells in total, one prior a cell, got 5 cells in 2 levels; flatten heads with several priors a cell to [B, P, C]"),
    ("padded", {"cls_logits": [*maps((2, 2)), *maps((1, 2), channels=C + 1)]}, ValueError, "cls_logits[1]: expected [B, C, H, W] with B = 2 and the same channels on every level, got [2, 4, 1, 2]"),
    ("padded", {"cls_logits": maps((2, 3), batch=3)}, ValueError, "cls_logits[0]: expected [B, C, H, W] with B = 2 and the same channels on every level, got [3, 3, 2, 3]"),
    ("padded", {"cls_logits": [torch.zeros(B, P, C)]}, ValueError, "cls_logits[0]: expected [B, C, H, W] with B = 2 and the same channels on every level, got [2, 6, 3]"),
    ("padded", {"cls_logits": [*maps((2, 2)), *maps((1, 2), dtype=torch.float16)]}, ValueError, "cls_logits[1]: expected the dtype of level 0, torch.float32, got torch.float16; cast the levels to one dtype"),
    ("padded", {"cls_logits": [*maps((2, 2)), None]}, TypeError, "cls_logits[1]: expected a torch.Tensor, got NoneType"),
    ("padded", {"cls_logits": [*maps((2, 2)), *maps((1, 2), device=META)]}, ValueError, f"cls_logits: expected device {OFF}"),
    ("padded", {"config": SimOTAConfig.yolox(score="prob"), "cls_logits": torch.full((B, P, C), 1.25)}, ValueError, "cls_logits: expected probabilities in [0, 1], because the configuration's score is 'prob', got 1.25; use score='sigmoid' for logits"),
    ("padded", {"config": SimOTAConfig.damo(score="prob"), "cls_logits": torch.full((B, P, C), -3.0)}, ValueError, "cls_logits: expected probabilities in [0, 1]"),
    ("padded", {"pred_boxes": np.zeros((B, P, 4))}, TypeError, "pred_boxes: expected a torch.Tensor, got ndarray; use torch.from_numpy(pred_boxes)"),
    ("padded", {"pred_boxes": torch.zeros(B, P, 4, device=META)}, ValueError, "pred_boxes: expected a tensor with values, got device meta; an assignment follows from values: move the model to a CPU or GPU first"),
    ("padded", {"cls_logits": np.zeros((B, P, C))}, TypeError, "cls_logits: expected a tensor [B, P, C] or a list of [B, C, H, W] maps, got ndarray; use torch.from_numpy(cls_logits)"),
    # objectness
    ("padded", {"config": JOINT}, ValueError, "obj_logits: expected [B, P, 1], because the configuration's score is 'joint' (sqrt of class and objectness), got None; pass the objectness logits, or use score='sigmoid'"),
    ("padded", {"obj_logits": OBJ}, ValueError, "obj_logits: expected None, because the configuration's score is 'logit', got a value; use score='joint' or leave it out"),
    ("padded", {"config": JOINT, "obj_logits": torch.zeros(B, P, C)}, ValueError, "obj_logits: expected [B, P, 1] = [2, 6, 1], got [2, 6, 3]"),
    ("padded", {"config": JOINT, "obj_logits": torch.zeros(B, P + 1)}, ValueError, "obj_logits: expected [B, P, 1] = [2, 6, 1], got [2, 7, 1]"),
    ("padded", {"config": JOINT, "obj_logits": OBJ.bool()}, ValueError, "obj_logits: expected a floating dtype"),
    ("padded", {"config": JOINT, "obj_logits": OBJ.to(META)}, ValueError, f"obj_logits: expected device {OFF}"),
    ("padded", {"config": JOINT, "obj_logits": maps((2, 3))}, ValueError, "obj_logits[0]: expected [B, 1, H, W] with B = 2"),
    ("padded", {"config": JOINT, "obj_logits": maps((2, 2), channels=1)}, ValueError, "obj_logits: expected levels with P = 6 cells in total"),
    ("padded", {"config": JOINT, "obj_logits": 0.5}, TypeError, "obj_logits: expected a tensor [B, P, 1] or a list of [B, 1, H, W] maps, got float"),
    # priors
    ("padded", {"priors": [(8, 8, 8, 8)]}, TypeError, "priors: expected a torch.Tensor, got list"),
    ("padded", {"priors": torch.ones(1, P, 4)}, ValueError, "priors: expected [P, 4] x, y, stride_x, stride_y (or [P, 3] x, y, stride), got [1, 6, 4]"),
    ("padded", {"priors": torch.ones(P, 2)}, ValueError, "priors: expected [P, 4] x, y, stride_x, stride_y (or [P, 3] x, y, stride), got [6, 2]"),
    ("padded", {"priors": torch.ones(P - 1, 4)}, ValueError, "priors: expected P = 6 rows, as in pred_boxes, got [5, 4]"),
    ("padded", {"priors": torch.ones(P, 4).long()}, ValueError, "priors: expected a floating dtype"),
    ("padded", {"priors": torch.ones(P, 4, device=META)}, ValueError, f"priors: expected device {OFF}; use priors.to(pred_boxes.device)"),
    ("padded", with_value("priors", (3, 0), NAN), ValueError, "priors: expected finite values, got [nan, 8.0, 8.0, 8.0] in row 3"),
    ("padded", with_value("priors", (2, 3), INF), ValueError, "priors: expected finite values, got [24.0, 8.0, 8.0, inf] in row 2"),
    ("padded", with_value("priors", (4, 2), 0.0), ValueError, "priors: expected strides > 0 in columns 2 and 3, got [40.0, 8.0, 0.0, 8.0] in row 4"),
    ("padded", with_value("priors", (5, 3), -8.0), ValueError, "priors: expected strides > 0 in columns 2 and 3, got [48.0, 8.0, 8.0, -8.0] in row 5"),
    ("padded", {"priors": torch.tensor([[8.0, 8.0, -4.0]]).repeat(P, 1)}, ValueError, "priors: expected strides > 0 in column"),
    ("padded", {"priors": torch.ones(B, P, 4)}, ValueError, "priors: expected [P, 4] x, y, stride_x, stride_y (or [P, 3] x, y, stride), got [2, 6, 4]; all images share their priors: pass priors[0]"),
    ("padded", {"priors": torch.ones(P, 2)}, ValueError, "priors: expected [P, 4] x, y, stride_x, stride_y (or [P, 3] x, y, stride), got [6, 2]; append the stride of each: torch.cat([priors, strides[:, None]], 1)"),
    ("padded", {"priors": ANCHORS}, ValueError, "priors: expected strides in columns 2 and 3, the distances between priors, got values above columns 0 and 1 in all rows, as [8.0, 0.0, 24.0, 16.0] in row 1; priors are points and strides, not boxes: simota_triton.grid_priors(image_size, strides, offset) forms them"),
    ("padded", {"priors": ANCHORS - 20}, ValueError, "priors: expected strides > 0 in columns 2 and 3, got [-20.0, -20.0, -4.0, -4.0] in row 0; priors are points and strides, not boxes"),
    # gt boxes, any form
    ("padded", {"gt_boxes": None}, TypeError, "gt_boxes: expected a tensor or a list of tensors, got NoneType"),
    ("padded", {"gt_boxes": torch.zeros(B, G, 5)}, ValueError, "gt_boxes: expected [B, G, 4] with B = 2, got [2, 2, 5]"),
    ("padded", {"gt_boxes": torch.zeros(B + 1, G, 4)}, ValueError, "gt_boxes: expected [B, G, 4] with B = 2, got [3, 2, 4]"),
    ("padded", {"gt_boxes": torch.zeros(4)}, ValueError, "gt_boxes: expected [B, G, 4], a list of [G, 4], or packed [N, 4] with gt_offsets, got [4]"),
    ("padded", {"gt_boxes": torch.zeros(B, G, 4).int()}, ValueError, "gt_boxes: expected a floating dtype (float16, bfloat16, float32, float64), got torch.int32; use gt_boxes.float()"),
    ("padded", {"gt_boxes": torch.zeros(B, G, 4, device=META)}, ValueError, f"gt_boxes: expected device {OFF}"),
    ("padded", with_value("gt_boxes", (1, 0, 2), NAN), ValueError, "gt_boxes: expected finite boxes of finite area, got [0.0, 0.0, nan, 20.0] for gt 0 of image 1; drop that gt or mask it out"),
    ("padded", with_value("gt_boxes", (0, 1, 0), -INF), ValueError, "gt_boxes: expected finite boxes of finite area, got [-inf, 0.0, 40.0, 20.0] for gt 1 of image 0"),
    ("padded", with_value("gt_boxes", (1, 1), torch.tensor([0.0, 0.0, 1e30, 1e30])), ValueError, "gt_boxes: expected finite boxes of finite area, got [0.0, 0.0, 1"),
    ("list", with_value("gt_boxes", (1, 1, 3), INF, "list"), ValueError, "gt_boxes: expected finite boxes of finite area, got [10.0, 0.0, 40.0, inf] for gt 1 of image 1"),
    ("packed", with_value("gt_boxes", (2, 1), NAN, "packed"), ValueError, "gt_boxes: expected finite boxes of finite area, got [0.0, nan, 20.0, 20.0] for gt 0 of image 1"),
    ("padded", {"gt_boxes": np.zeros((B, G, 4))}, TypeError, "gt_boxes: expected a tensor or a list of tensors, got ndarray; use torch.from_numpy(gt_boxes)"),
    ("padded", {"gt_boxes": torch.zeros(B, G, 5)}, ValueError, "gt_boxes: expected [B, G, 4] with B = 2, got [2, 2, 5]; pass the xyxy boxes that enclose rotated ones, or assign these by TaskAlignedAssigner('tal_obb')"),
    ("packed", {"gt_boxes": torch.zeros(2 * G, 5)}, ValueError, "gt_boxes: expected [B, G, 4], a list of [G, 4], or packed [N, 4] with gt_offsets, got [4, 5]; pass the xyxy boxes that enclose rotated ones"),
    ("list", {"gt_boxes": [[[0.0, 0.0, 9.0, 9.0]], [[0.0, 0.0, 9.0, 9.0]]]}, TypeError, "gt_boxes[0]: expected a torch.Tensor, got list; use torch.tensor(gt_boxes[0])"),
    ("padded", {"gt_boxes": XYWH}, ValueError, "gt_boxes: expected xyxy with x1 <= x2 and y1 <= y2, got the opposite in 3 of 4 boxes; convert corner and size with convert_boxes(gt_boxes, 'xywh'), centre and size with convert_boxes(gt_boxes, 'cxcywh')"),
    ("list", {"gt_boxes": list(XYWH)}, ValueError, "gt_boxes: expected xyxy with x1 <= x2 and y1 <= y2, got the opposite in 3 of 4 boxes"),
    ("packed", {"gt_boxes": XYWH.flatten(0, 1)}, ValueError, "gt_boxes: expected xyxy with x1 <= x2 and y1 <= y2, got the opposite in 3 of 4 boxes"),
    ("padded", {"gt_boxes": XYWH, "gt_mask": torch.tensor([[True, True], [False, True]])}, ValueError, "gt_boxes: expected xyxy with x1 <= x2 and y1 <= y2, got the opposite in 2 of 3 boxes"),
    # gt labels
    ("padded", {"gt_labels": [LABELS[0], LABELS[1]]}, TypeError, "gt_labels: expected a torch.Tensor, got list"),
    ("padded", {"gt_labels": LABELS[..., None]}, ValueError, "gt_labels: expected [B, G] = [2, 2], the form of gt_boxes, got [2, 2, 1]; squeeze the last dimension"),
    ("padded", {"gt_labels": torch.zeros(B, G + 1).long()}, ValueError, "gt_labels: expected [B, G] = [2, 2], the form of gt_boxes, got [2, 3]"),
    ("padded", {"gt_labels": LABELS.float()}, ValueError, "gt_labels: expected an integer dtype, got torch.float32; use gt_labels.long()"),
    ("padded", {"gt_labels": LABELS.bool()}, ValueError, "gt_labels: expected an integer dtype, got torch.bool"),
    ("padded", {"gt_labels": LABELS.to(META)}, ValueError, f"gt_labels: expected device {OFF}"),
    ("padded", {"gt_labels": torch.tensor([[0, 1], [-1, 2]])}, ValueError, "gt_labels: expected labels in [0, 3), the classes of cls_logits, got -1 for gt 0 of image 1"),
    ("padded", {"gt_labels": torch.tensor([[0, 3], [1, 2]])}, ValueError, "gt_labels: expected labels in [0, 3), the classes of cls_logits, got 3 for gt 1 of image 0"),
    ("packed", {"gt_labels": torch.tensor([0, 1, 2, 1 << 40])}, ValueError, "gt_labels: expected labels in [0, 3), the classes of cls_logits, got 1099511627776 for gt 1 of image 1"),
    ("packed", {"gt_labels": LABELS}, ValueError, "gt_labels: expected [N] = [4], the form of gt_boxes, got [2, 2]"),
    ("list", {"gt_labels": LABELS}, TypeError, "gt_labels: expected a list of tensors, as gt_boxes, got Tensor"),
    ("padded", {"gt_labels": torch.eye(C, dtype=torch.int64)[LABELS]}, ValueError, "gt_labels: expected [B, G] = [2, 2], the form of gt_boxes, got [2, 2, 3]; of one-hot labels pass gt_labels.argmax(-1); give a gt of several classes once for each of them"),
    ("list", {"gt_labels": [LABELS[0], torch.eye(C)[LABELS[1]]]}, ValueError, "gt_labels[1]: expected [2], got [2, 3]; of one-hot labels pass gt_labels.argmax(-1)"),
    ("list", {"gt_labels": [LABELS[0], LABELS[1][:, None]]}, ValueError, "gt_labels[1]: expected [2], got [2, 1]; squeeze the last dimension"),
    ("packed", {"gt_labels": LABELS.view(-1, 1)}, ValueError, "gt_labels: expected [N] = [4], the form of gt_boxes, got [4, 1]; squeeze the last dimension"),
    ("padded", {"gt_labels": torch.tensor([[1, 2], [3, 3]])}, ValueError, "gt_labels: expected labels in [0, 3), the classes of cls_logits, got 3 for gt 0 of image 1; classes count from 0; drop padding or mask it out"),
    # gts as lists
    ("list", {"gt_boxes": [torch.zeros(G, 4)]}, ValueError, "gt_boxes: expected a list of B = 2 tensors [*, 4], got 1 tensors; pass an empty [0, 4] tensor for an image without any"),
    ("list", {"gt_boxes": [torch.zeros(G, 4), torch.zeros(4)]}, ValueError, "gt_boxes[1]: expected [*, 4], got [4]"),
    ("list", {"gt_boxes": [torch.zeros(G, 4), torch.zeros(0)]}, ValueError, "gt_labels[1]: expected [0], got [2]"),
    ("list", {"gt_boxes": [torch.zeros(G, 4), None]}, TypeError, "gt_boxes[1]: expected a torch.Tensor, got NoneType; pass an empty [0, 4] tensor for an image without any"),
    ("list", {"gt_labels": [LABELS[0], None]}, TypeError, "gt_labels[1]: expected a torch.Tensor, got NoneType; pass an empty [0] tensor for an image without any"),
    ("list", {"gt_centers": [torch.zeros(G, 2), None]}, TypeError, "gt_centers[1]: expected a torch.Tensor, got NoneType; pass an empty [0, 2] tensor for an image without any"),
    ("padded", {"gt_labels": list(LABELS)}, TypeError, "gt_labels: expected a torch.Tensor, got list; use torch.stack(gt_labels)"),
    ("list", {"gt_boxes": [torch.zeros(G, 4), torch.zeros(G, 5)]}, ValueError, "gt_boxes[1]: expected [*, 4], got [2, 5]; pass the xyxy boxes that enclose rotated ones, or assign these by TaskAlignedAssigner('tal_obb')"),
    ("list", {"gt_boxes": [torch.zeros(G, 4), [[0.0] * 4]]}, TypeError, "gt_boxes[1]: expected a torch.Tensor, got list"),
    ("list", {"gt_boxes": [torch.zeros(G, 4), torch.zeros(G, 4, device=META)]}, ValueError, f"gt_boxes[1]: expected device {OFF}; use gt_boxes.to(pred_boxes.device)"),
    ("list", {"gt_boxes": [torch.zeros(G, 4), torch.zeros(G, 4).half()]}, ValueError, "gt_boxes[1]: expected the dtype of the first, torch.float32, got torch.float16; cast the list to one dtype"),
    ("list", {"gt_boxes": (box for box in torch.zeros(B, G, 4))}, TypeError, "gt_boxes: expected a tensor or a list of tensors, got generator"),
    ("list", {"gt_labels": [LABELS[0]]}, ValueError, "gt_labels: expected a list of B = 2 tensors, got 1 tensors"),
    ("list", {"gt_labels": [LABELS[0], LABELS[1][:1]]}, ValueError, "gt_labels[1]: expected [2], got [1]"),
    ("list", {"gt_labels": [LABELS[0], LABELS[1][:, None]]}, ValueError, "gt_labels[1]: expected [2], got [2, 1]"),
    ("list", {"gt_labels": [LABELS[0], LABELS[1].to(META)]}, ValueError, f"gt_labels[1]: expected device {OFF}"),
    ("list", {"gt_mask": torch.ones(B, G, dtype=torch.bool)}, ValueError, "gt_mask: expected None with a list of gts, got a value; leave it out"),
    ("list", {"gt_offsets": torch.tensor([0, 2, 4])}, ValueError, "gt_offsets: expected None with a list of gts, got a value; leave it out"),
    # gts padded
    ("padded", {"gt_mask": [[True, True]] * B}, TypeError, "gt_mask: expected a torch.Tensor, got list"),
    ("padded", {"gt_mask": torch.ones(B, G, 1, dtype=torch.bool)}, ValueError, "gt_mask: expected [B, G] = [2, 2], the form of gt_boxes, got [2, 2, 1]; squeeze the last dimension"),
    ("padded", {"gt_mask": torch.ones(B, dtype=torch.bool)}, ValueError, "gt_mask: expected [B, G] = [2, 2], the form of gt_boxes, got [2]"),
    ("padded", {"gt_mask": torch.ones(B, G)}, ValueError, "gt_mask: expected torch.bool, True for real gts, got torch.float32; use gt_mask.bool()"),
    ("padded", {"gt_mask": torch.ones(B, G, dtype=torch.bool, device=META)}, ValueError, f"gt_mask: expected device {OFF}"),
    ("padded", {"gt_offsets": torch.tensor([0, 2, 4])}, ValueError, "gt_offsets: expected None with padded gt_boxes [B, G, 4], got a value; leave it out, or pass packed gt_boxes [N, 4]"),
    ("padded", {"gt_mask": None, **BLANK}, ValueError, "gt_mask: expected [B, G] bool, False for padding, got None and a box of zeros, gt 1 of image 1; pass the mask, with True for that gt if it is real, or pass a list of [G, 4]"),
    # gts packed
    ("packed", {"gt_offsets": None}, ValueError, "gt_offsets: expected [B + 1] with packed gt_boxes [N, 4], got None; pass the offsets, padded gt_boxes [B, G, 4], or a list of [G, 4]"),
    ("packed", {"gt_offsets": [0, 2, 4]}, TypeError, "gt_offsets: expected a torch.Tensor, got list"),
    ("packed", {"gt_offsets": torch.tensor([0, 4])}, ValueError, "gt_offsets: expected [B + 1] = [3], got [2]"),
    ("packed", {"gt_offsets": torch.tensor([0.0, 2.0, 4.0])}, ValueError, "gt_offsets: expected int64 or int32, got torch.float32; use gt_offsets.long()"),
    ("packed", {"gt_offsets": torch.tensor([0, 2, 5])}, ValueError, "gt_offsets: expected row numbers from 0 to N = 4, never decreasing, got [0, 2, 5]; image b owns rows gt_offsets[b] to gt_offsets[b + 1]"),
    ("packed", {"gt_offsets": torch.tensor([0, 5, 4])}, ValueError, "gt_offsets: expected row numbers from 0 to N = 4, never decreasing, got [0, 5, 4]; image b owns rows gt_offsets[b] to gt_offsets[b + 1]"),
    ("packed", {"gt_offsets": torch.tensor([0, -1, 4])}, ValueError, "gt_offsets: expected row numbers from 0 to N = 4, never decreasing, got [0, -1, 4]; image b owns rows gt_offsets[b] to gt_offsets[b + 1]"),
    ("packed", {"gt_offsets": torch.tensor([0, 2, 4], device=META)}, ValueError, "gt_offsets: expected device cpu, got meta; use gt_offsets.to(pred_boxes.device)"),
    ("packed", {"gt_mask": torch.ones(4, dtype=torch.bool)}, ValueError, "gt_mask: expected None with packed gt_boxes [N, 4], got a value; leave it out"),
    # centres
    ("padded", {"gt_centers": torch.zeros(B, G)}, ValueError, "gt_centers: expected [B, G, 2] = [2, 2, 2], the form of gt_boxes, got [2, 2]"),
    ("padded", {"gt_centers": torch.zeros(B, G, 2).long()}, ValueError, "gt_centers: expected a floating dtype"),
    ("padded", {"gt_centers": torch.zeros(B, G, 2, device=META)}, ValueError, f"gt_centers: expected device {OFF}"),
    ("padded", {"gt_centers": torch.tensor([[[0.0, 0.0], [1.0, NAN]]] * B)}, ValueError, "gt_centers: expected finite values, got [1.0, nan] for gt 1 of image 0; drop that gt or mask it out"),
    ("packed", {"gt_centers": torch.zeros(B, G, 2)}, ValueError, "gt_centers: expected [N, 2] = [4, 2], the form of gt_boxes, got [2, 2, 2]"),
    ("list", {"gt_centers": torch.zeros(B, G, 2)}, TypeError, "gt_centers: expected a list of tensors, as gt_boxes, got Tensor"),
    ("list", {"gt_centers": [torch.zeros(G, 2), torch.zeros(1, 2)]}, ValueError, "gt_centers[1]: expected [2, 2], got [1, 2]"),
    # ignore boxes and candidates
    ("padded", {"ignore_boxes": 3}, TypeError, "ignore_boxes: expected a tensor or a list of tensors, got int"),
    ("padded", {"ignore_boxes": torch.zeros(3, 4)}, ValueError, "ignore_boxes: expected [B, I, 4] with B = 2, or a list of [I, 4], got [3, 4]; pad with zero boxes"),
    ("padded", {"ignore_boxes": torch.zeros(B, 3, 4).long()}, ValueError, "ignore_boxes: expected a floating dtype"),
    ("padded", {"ignore_boxes": torch.zeros(B, 3, 4, device=META)}, ValueError, f"ignore_boxes: expected device {OFF}"),
    ("padded", {"ignore_boxes": torch.full((B, 1, 4), NAN)}, ValueError, "ignore_boxes: expected finite values, got NaN or Inf; pad with zero boxes"),
    ("padded", {"ignore_boxes": [torch.zeros(1, 4)]}, ValueError, "ignore_boxes: expected a list of B = 2 tensors [*, 4], got 1 tensors; pass an empty [0, 4] tensor"),
    ("padded", {"ignore_boxes": [torch.zeros(1, 4), torch.zeros(1, 5)]}, ValueError, "ignore_boxes[1]: expected [*, 4], got [1, 5]"),
    ("padded", {"ignore_boxes": [torch.zeros(1, 4, device=META)] * B}, ValueError, f"ignore_boxes[0]: expected device {OFF}"),
    ("padded", {"candidate_mask": [True] * P}, TypeError, "candidate_mask: expected a torch.Tensor, got list"),
    ("padded", {"candidate_mask": torch.ones(B, dtype=torch.bool)}, ValueError, "candidate_mask: expected [B, P] = [2, 6] or [P], got [2]"),
    ("padded", {"candidate_mask": torch.ones(1, P, dtype=torch.bool)}, ValueError, "candidate_mask: expected [B, P] = [2, 6] or [P], got [1, 6]"),
    ("padded", {"candidate_mask": torch.ones(P)}, ValueError, "candidate_mask: expected torch.bool, True for priors that may be assigned, got torch.float32; use candidate_mask.bool()"),
    ("padded", {"candidate_mask": torch.ones(P, dtype=torch.bool, device=META)}, ValueError, f"candidate_mask: expected device {OFF}"),
    ("padded", {"level_shapes": (2, 3)}, ValueError, "level_shapes[0]: expected (rows, columns) of each level, integers, got 2; pass a list of pairs, as [(80, 80), (40, 40)]"),
    # the assigner itself
    ("padded", {"config": "RTMDet"}, ValueError, f"preset: expected one of {', '.join(map(repr, SimOTAConfig.presets()))}, got 'RTMDet'; did you mean 'rtmdet'?"),
    ("padded", {"config": "yolo"}, ValueError, "preset: expected one of 'seed', 'rtmdet'"),
    ("padded", {"config": None}, TypeError, "config: expected a preset's name or a SimOTAConfig, got NoneType"),
    ("padded", {"config": SimOTAConfig.rtmdet}, TypeError, "config: expected a preset's name or a SimOTAConfig, got method; call it"),
    ("padded", {"config": {"candidate_topk": 3}}, TypeError, "config: expected a preset's name or a SimOTAConfig, got dict"),
    ("padded", {"backend": "cuda"}, ValueError, "backend: expected one of 'auto', 'reference', 'torch'"),
    ("padded", {"backend": None}, TypeError, "backend: expected a name, got NoneType"),
    ("padded", {"validate": 1}, TypeError, "validate: expected True, False or None, got 1"),
]  # fmt: skip


ROTATED = torch.tensor([[[16.0, 8.0, 20.0, 20.0, 0.0], [24.0, 8.0, 30.0, 20.0, 0.3]]]).repeat(B, 1, 1)
ROTATED_PREDICTIONS = ROTATED[:, :1].repeat(1, P, 1)
NEGATIVE = ROTATED.clone()
NEGATIVE[1, 0, 3] = -20.0
OBB = {"config": "tal_obb", "pred_boxes": ROTATED_PREDICTIONS, "gt_boxes": ROTATED}
PROBABILITIES = {"config": TaskAlignedConfig.tal(score="prob")}

ALIGNED = [
    # what this rule has no use for
    ({"obj_logits": OBJ}, TypeError, "obj_logits: no argument of a call of TaskAlignedAssigner; the metric has no objectness: multiply class probabilities by it, and set score='prob'"),
    ({"extra_cost": torch.zeros(B, G, P)}, TypeError, "extra_cost: no argument of a call of TaskAlignedAssigner; the metric is no cost: use pair_mask"),
    ({"gt_centers": torch.zeros(B, G, 2)}, TypeError, "gt_centers: no argument of a call of TaskAlignedAssigner; the region is the gt's box: leave it out"),
    ({"anchors": ANCHORS}, TypeError, "anchors: no argument of a call of TaskAlignedAssigner"),
    # predictions
    ({"pred_boxes": torch.zeros(P, 4)}, ValueError, "pred_boxes: expected [B, P, 4], got [6, 4]; add the batch dimension with pred_boxes[None]"),
    ({"cls_logits": torch.zeros(B, C, P)}, ValueError, "cls_logits: expected [B, P, C] = [2, 6, C], got [2, 3, 6]"),
    ({**PROBABILITIES, "cls_logits": torch.full((B, P, C), -0.5)}, ValueError, "cls_logits: expected probabilities in [0, 1], because the configuration's score is 'prob', got -0.5; use score='sigmoid' for logits"),
    ({**PROBABILITIES, "cls_logits": [m + 3.0 for m in maps((2, 2), (1, 2))]}, ValueError, "cls_logits: expected probabilities in [0, 1]"),
    # priors
    ({"config": "yolo9_mit", "priors": torch.ones(P, 2)}, ValueError, "priors: expected [P, 4] x, y, stride_x, stride_y (or [P, 3] x, y, stride), got [6, 2]; append the stride of each: torch.cat([priors, strides[:, None]], 1)"),
    ({"priors": torch.ones(2, P)}, ValueError, "priors: expected [P, 4] x, y, stride_x, stride_y (or [P, 3] x, y, stride, or [P, 2] x, y), got [2, 6]"),
    ({"priors": torch.ones(B, P, 2)}, ValueError, "priors: expected [P, 4] x, y, stride_x, stride_y (or [P, 3] x, y, stride, or [P, 2] x, y), got [2, 6, 2]; all images share their priors: pass priors[0]"),
    ({"priors": torch.ones(P + 1, 2)}, ValueError, "priors: expected P = 6 rows, as in pred_boxes, got [7, 2]"),
    ({"priors": torch.full((P, 2), NAN)}, ValueError, "priors: expected finite values, got [nan, nan, 1.0, 1.0] in row 0"),
    ({"priors": ANCHORS}, ValueError, "priors: expected strides in columns 2 and 3, the distances between priors"),
    # gts
    ({"gt_labels": torch.tensor([[0, 3], [1, 2]])}, ValueError, "gt_labels: expected labels in [0, 3), the classes of cls_logits, got 3 for gt 1 of image 0"),
    ({"gt_boxes": XYWH}, ValueError, "gt_boxes: expected xyxy with x1 <= x2 and y1 <= y2, got the opposite in 3 of 4 boxes"),
    (with_value("gt_boxes", (1, 0, 2), NAN), ValueError, "gt_boxes: expected finite boxes of finite area, got [0.0, 0.0, nan, 20.0] for gt 0 of image 1"),
    ({"gt_mask": None, **BLANK}, ValueError, "gt_mask: expected [B, G] bool, False for padding, got None and a box of zeros, gt 1 of image 1; pass the mask, with True for that gt if it is real, or pass a list of [G, 4]"),
    ({"pair_mask": torch.ones(B, G, P)}, ValueError, "pair_mask: expected torch.bool, True where the gt may take the prior, got torch.float32; use pair_mask.bool()"),
    # the format of boxes
    ({"pred_boxes": ROTATED_PREDICTIONS}, ValueError, "pred_boxes: expected [B, P, 4], got [2, 6, 5]; pass the xyxy boxes that enclose rotated ones, or assign these by TaskAlignedAssigner('tal_obb')"),
    ({"gt_boxes": ROTATED}, ValueError, "gt_boxes: expected [B, G, 4] with B = 2, got [2, 2, 5]; pass the xyxy boxes that enclose rotated ones"),
    ({"config": "tal_obb"}, ValueError, "pred_boxes: expected [B, P, 5], got [2, 6, 4]; this configuration's boxes are rotated: (cx, cy, w, h, angle in radians)"),
    ({**OBB, "gt_boxes": XYWH}, ValueError, "gt_boxes: expected [B, G, 5] with B = 2, got [2, 2, 4]; this configuration's boxes are rotated"),
    ({**OBB, "gt_boxes": [XYWH[0], ROTATED[1]], "gt_labels": list(LABELS), "gt_mask": None}, ValueError, "gt_boxes[0]: expected [*, 5], got [2, 4]; this configuration's boxes are rotated"),
    ({**OBB, "gt_boxes": NEGATIVE}, ValueError, "gt_boxes: expected sides w and h of 0 or more, got [16.0, 8.0, 20.0, -20.0, 0.0] for gt 0 of image 1; rotated boxes are (cx, cy, w, h, angle in radians)"),
    ({**OBB, "gt_boxes": ROTATED * NAN}, ValueError, "gt_boxes: expected finite boxes of finite area, got [nan, nan, nan, nan, nan] for gt 0 of image 0"),
    ({**OBB, "gt_boxes": ROTATED * 0, "gt_mask": None}, ValueError, "gt_mask: expected [B, G] bool, False for padding, got None and a box of zeros, gt 0 of image 0; pass the mask, with True for that gt if it is real, or pass a list of [G, 5]"),
    ({**OBB, "ignore_boxes": ROTATED}, ValueError, "ignore_boxes: expected [B, I, 4] with B = 2, or a list of [I, 4], got [2, 2, 5]"),
    ({**OBB, "ignore_boxes": list(ROTATED)}, ValueError, "ignore_boxes[0]: expected [*, 4], got [2, 5]; pass the xyxy boxes that enclose rotated ones"),
    # the assigner itself
    ({"config": "TAL"}, ValueError, f"preset: expected one of {', '.join(map(repr, TaskAlignedConfig.presets()))}, got 'TAL'; did you mean 'tal'?"),
    ({"config": None}, TypeError, "config: expected a preset's name or a TaskAlignedConfig, got NoneType"),
    ({"config": TaskAlignedConfig.yolov6}, TypeError, "config: expected a preset's name or a TaskAlignedConfig, got method; call it"),
    ({"config": SimOTAConfig.rtmdet()}, TypeError, "config: expected a preset's name or a TaskAlignedConfig, got SimOTAConfig; use SimOTAAssigner"),
    ({"backend": "triton"}, ValueError, "backend: expected one of 'auto', 'reference', 'torch', 'triton-stream', which compute the rule 'task_aligned', got 'triton'"),
    ({**OBB, "backend": "triton"}, ValueError, "backend: expected one of 'auto', 'reference', 'torch'"),
]  # fmt: skip


def call(args, kind=SimOTAAssigner):
    args = dict(args)
    assigner = kind(
        args.pop("config"), backend=args.pop("backend", "reference"), validate=args.pop("validate", None)
    )
    return assigner(**args)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    ALIGNED,
    ids=[f"{'-'.join(changes)}-{i}" for i, (changes, _, _) in enumerate(ALIGNED)],
)
def test_wrong_input_of_the_task_aligned_assigner_is_refused(changes, error, message):
    args = {**inputs(config="tal"), **changes}
    with pytest.raises(error, match="^" + re.escape(message)):
        call(args, TaskAlignedAssigner)


@pytest.mark.parametrize(
    "changes", [{}, OBB, {"priors": inputs()["priors"][:, :2]}, {**PROBABILITIES, "cls_logits": maps((2, 3))}]
)
def test_the_inputs_that_those_cases_change_are_right(changes):
    assert call({**inputs(config="tal"), **changes}, TaskAlignedAssigner)


@pytest.mark.parametrize("name", ["obj_logits", "extra_cost", "gt_centers"])
def test_the_metric_matrix_refuses_what_a_call_refuses(name):
    args = inputs()
    del args["config"]
    with pytest.raises(TypeError, match=f"^{name}: no argument of a call of TaskAlignedAssigner; "):
        TaskAlignedAssigner("tal").metric_matrix(**args, **{name: None})


@pytest.mark.parametrize(
    ("kind", "preset", "other"),
    [(SimOTAAssigner, "tal", TaskAlignedAssigner), (TaskAlignedAssigner, "rtmdet", SimOTAAssigner)],
)
def test_presets_of_another_rule_are_named_with_their_assigner(kind, preset, other):
    owner, use = other.config_class.__name__, other.__name__
    ending = f"got {preset!r}, a preset of {owner}; use {use}({preset!r})"
    with pytest.raises(ValueError, match=r"^preset: expected one of '.*" + re.escape(ending) + "$"):
        kind(preset)
    with pytest.raises(TypeError, match=f"got {owner}; use {use}$"):
        kind(other.config_class.from_preset(preset))


@pytest.mark.parametrize(
    ("form", "changes", "error", "message"),
    CASES,
    ids=[f"{form}-{'-'.join(changes)}-{i}" for i, (form, changes, _, _) in enumerate(CASES)],
)
def test_wrong_input_is_refused(form, changes, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        call({**inputs(form), **changes})


@pytest.mark.parametrize("form", ["padded", "list", "packed"])
def test_the_inputs_that_the_cases_change_are_right(form):
    assert int(call(inputs(form)).num_pos.sum()) > 0
    assert int(call({**inputs(form, JOINT), "obj_logits": OBJ}).num_pos.sum()) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topk": 5}, "topk: no argument of SimOTAAssigner, which takes config, backend, validate and kernels; fields are changed in the configuration, as in SimOTAAssigner(SimOTAConfig.yolox(candidate_topk=...))"),
        ({"centre_radius": 1.5}, "centre_radius: no argument of SimOTAAssigner, which takes config, backend, validate and kernels; fields are changed in the configuration, as in SimOTAAssigner(SimOTAConfig.yolox(center_radius=...))"),
    ],
)  # fmt: skip
def test_fields_of_the_configuration_are_no_arguments_of_the_assigner(options, message):
    for config in ("yolox", "YOLOX", SimOTAConfig.yolox(center_radius=1.5)):
        with pytest.raises(TypeError, match="^" + re.escape(message)):
            SimOTAAssigner(config, **options)
    with pytest.raises(TypeError, match=r"as in TaskAlignedAssigner\(TaskAlignedConfig\.yolov6\("):
        TaskAlignedAssigner("yolov6", **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SimOTAConfig.rtmdet(topk=5), "; did you mean 'candidate_topk'?"),
        (lambda: SimOTAConfig.rtmdet(centre_radius=5), "; did you mean 'center_radius'?"),
        (lambda: SimOTAConfig.rtmdet(anchors=5), "'prior_offset'"),
        (lambda: SimOTAConfig.from_preset("YOLOX-main"), "; did you mean 'yolox_main'?"),
        (lambda: SimOTAAssigner(backend="Triton_Stream"), "; did you mean 'triton-stream'?"),
        (lambda: TaskAlignedConfig.tal(top_k=5), "; did you mean 'topk'?"),
        (lambda: TaskAlignedConfig.from_preset("YOLO-V9"), "; did you mean 'yolov9'?"),
    ],
)
def test_the_nearest_known_name_is_suggested(call, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message) + "$"):
        call()


def test_predictions_of_a_head_that_has_learnt_nothing_are_taken_as_they_are():
    """RTMDet's distances to a box's sides may be negative before training: most boxes are then inverted."""
    priors = grid_priors(160)
    boxes = torch.cat([priors[:, :2] + priors[:, 2:], priors[:, :2] - priors[:, 2:]], 1)
    gts = [torch.tensor([[10.0, 10.0, 60.0, 60.0]])], [torch.tensor([0])]
    result = assign(boxes[None], torch.zeros(1, len(priors), C), priors, *gts)
    assert result.dynamic_k.tolist() == [1]


ODD_GTS = [
    [
        [0.0, 0.0, 0.0, 0.0],
        [64.0, 0.0, 64.0, 30.0],
        [10.0, 64.0, 30.0, 64.0],
    ],  # what clipping leaves of gts beyond a mosaic's edge
    [[20.0, 5.0, 10.0, 30.0], [0.0, 0.0, 20.0, 20.0]],  # one that is inverted
    [[20.0, 5.0, 10.0, 30.0]],
    [[20.0, 5.0, 10.0, 30.0], [0.0, 0.0, 20.0, 20.0]] * 2,  # half of them
]


@pytest.mark.parametrize("boxes", ODD_GTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_degenerate_gts_are_legal(backend, boxes):
    boxes, labels = torch.tensor(boxes), torch.zeros(len(boxes), dtype=torch.int64)
    shared = {name: inputs()[name] for name in ("pred_boxes", "cls_logits", "priors")}
    mask = torch.stack([torch.ones(len(boxes)), torch.zeros(len(boxes))]).bool()
    for gt_boxes, gt_labels, more in (
        ([boxes, boxes[:0]], [labels, labels[:0]], {}),
        (boxes, labels, {"gt_offsets": torch.tensor([0, len(boxes), len(boxes)])}),
        (torch.stack([boxes, boxes]), torch.stack([labels, labels]), {"gt_mask": mask}),
    ):
        result = SimOTAAssigner("rtmdet", backend=backend, validate=True)(
            **shared, gt_boxes=gt_boxes, gt_labels=gt_labels, **more
        )
        assert bool((result.to_image(0).dynamic_k > 0).all())


@pytest.mark.parametrize("size", [8, 16, 40, (64, 8)])
@pytest.mark.parametrize("offset", [0.0, 0.3, 0.5])
def test_grids_of_any_size_are_no_anchors(size, offset):
    for strides in ((8,), (8, 16, 32), (4, 7, 64, 128)):
        priors = grid_priors(size, strides, offset)
        values = torch.zeros(1, len(priors), 4), torch.zeros(1, len(priors), C), priors
        assign(*values, [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)])


def coco():
    """Image size and gts, xywh, of each image of the COCO sample; skipped where it is not at hand."""
    folder = Path(
        os.environ.get("SIMOTA_TRITON_COCO", Path(__file__).parents[2] / "shared" / "data" / "coco80")
    )
    if not (folder / "instances.json").exists():
        pytest.skip("needs a COCO sample: set SIMOTA_TRITON_COCO")
    data = json.loads((folder / "instances.json").read_text())
    boxes = {image["id"]: [] for image in data["images"]}
    for annotation in data["annotations"]:
        boxes[annotation["image_id"]].append(annotation["bbox"])
    return [torch.tensor(own).view(-1, 4) for own in boxes.values()]


def test_real_gts_pass_and_their_sizes_do_not():
    priors, images = grid_priors(640), coco()
    shared = torch.zeros(4, len(priors), 4), torch.zeros(4, len(priors), 1), priors
    refused = 0
    for start in range(0, len(images) - 3, 4):
        batch = images[start : start + 4]
        labels = [torch.zeros(len(boxes), dtype=torch.int64) for boxes in batch]
        pack(SimOTAConfig.rtmdet(), *shared, [convert_boxes(boxes, "xywh") for boxes in batch], labels)
        try:
            pack(SimOTAConfig.rtmdet(), *shared, batch, labels)
        except ValueError as error:
            refused += str(error).startswith("gt_boxes: expected xyxy")
    assert refused >= len(images) // 4 - 1


def test_a_wrong_backend_from_the_environment_is_refused_by_its_name(monkeypatch):
    monkeypatch.setenv("SIMOTA_TRITON_BACKEND", "fast")
    with pytest.raises(
        ValueError,
        match=r"^SIMOTA_TRITON_BACKEND: expected one of 'auto', 'reference', 'torch'.*, got 'fast'",
    ):
        call({**inputs(), "backend": "auto"})
    assert call({**inputs(), "backend": "reference"})  # what is asked for is not looked up


def test_a_backend_from_the_environment_that_has_not_the_rule_is_refused_by_its_name(monkeypatch):
    monkeypatch.setenv("SIMOTA_TRITON_BACKEND", "triton")
    with pytest.raises(
        ValueError,
        match=r"^SIMOTA_TRITON_BACKEND: expected one of 'auto', 'reference', 'torch'.*, which compute the "
        r"rule 'task_aligned', got 'triton'$",
    ):
        call({**inputs(config="tal"), "backend": "auto"}, TaskAlignedAssigner)
    assert call({**inputs(config="tal"), "backend": "torch"}, TaskAlignedAssigner)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_the_environment_chooses_where_nothing_is_asked_for(monkeypatch, backend):
    used = []
    assign = simota_triton.backends.assign
    monkeypatch.setattr(
        simota_triton.backends, "assign", lambda name, *args: used.append(name) or assign(name, *args)
    )
    monkeypatch.setenv("SIMOTA_TRITON_BACKEND", backend)
    call({**inputs(), "backend": "auto"})
    assert used == [backend]


def test_assign_is_an_assigner_in_one_call():
    args = inputs(config="nanodet")
    config = args.pop("config")
    assert torch.equal(assign(**args, config=config).gt_index, SimOTAAssigner(config)(**args).gt_index)
    with pytest.raises(ValueError, match=r"^preset: expected one of"):
        assign(**args, config="nanodets")
    with pytest.raises(ValueError, match=r"^backend: expected one of"):
        assign(**args, backend="numpy")


@pytest.mark.parametrize(
    ("masks", "boxes", "error", "message"),
    [
        ([], torch.zeros(0, 4), TypeError, "masks: expected a torch.Tensor, got list; use torch.tensor(masks)"),
        (torch.zeros(2, 5, 5), None, TypeError, "gt_boxes: expected a torch.Tensor, got NoneType"),
        (torch.zeros(5, 5), torch.zeros(5, 4), ValueError, "masks: expected [G, H, W], got [5, 5]"),
        (torch.zeros(2, 5, 5).long(), torch.zeros(2, 4), ValueError, "masks: expected bool, uint8 or a floating dtype, got torch.int64; use masks.bool()"),
        (torch.zeros(2, 5, 5), torch.zeros(3, 4), ValueError, "gt_boxes: expected [G, 4] = [2, 4], got [3, 4]"),
    ],
)  # fmt: skip
def test_wrong_masks_are_refused(masks, boxes, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        mask_centers(masks, boxes)


METRIC = torch.tensor([[[0.5, 0.25, 0.0], [0.4, 0.3, 0.2]]])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"metric": [[[0.5]]]}, TypeError, "metric: expected a torch.Tensor, got list; use torch.tensor(metric)"),
        ({"metric": METRIC[0], "overlap": METRIC[0]}, ValueError, "metric, overlap: expected two [B, G, P] of one shape, got [2, 3] and [2, 3]; add the batch dimension with metric[None], overlap[None]"),
        ({"overlap": METRIC[..., :2]}, ValueError, "metric, overlap: expected two [B, G, P] of one shape, got [1, 2, 3] and [1, 2, 2]"),
        ({"metric": METRIC.long()}, ValueError, "metric: expected a floating dtype"),
        ({"overlap": METRIC.to(META)}, ValueError, "overlap: expected device cpu, as metric, got meta; use overlap.to(metric.device)"),
        ({"metric": METRIC * NAN}, ValueError, "metric: expected numbers, got NaN; put 0 where a gt may not take a prior"),
        ({"overlap": METRIC * NAN}, ValueError, "overlap: expected numbers, got NaN; put -1 where a gt may not take a prior"),
        ({"inside": METRIC}, ValueError, "inside: expected torch.bool, got torch.float32; use inside.bool()"),
        ({"inside": METRIC[0] > 0}, ValueError, "inside: expected [B, G, P] = [1, 2, 3], as metric, got [2, 3]"),
        ({"inside": True}, TypeError, "inside: expected a torch.Tensor, got bool"),
        ({"gt_mask": torch.ones(1, 2)}, ValueError, "gt_mask: expected torch.bool, got torch.float32; use gt_mask.bool()"),
        ({"gt_mask": torch.ones(2) > 0}, ValueError, "gt_mask: expected [B, G] = [1, 2], as metric, got [2]"),
        ({"topk": 0}, ValueError, "topk: expected 1 to 32, got 0"),
        ({"topk": 33}, ValueError, "topk: expected 1 to 32, got 33"),
        ({"topk": 2.0}, TypeError, "topk: expected an integer, got 2.0"),
        ({"topk": 3, "topk2": 4}, ValueError, "topk2: expected at most topk = 3, got 4"),
        ({"pool": "any"}, ValueError, "pool: expected one of 'inside', 'all', got 'any'"),
        ({"conflict": "max_iou"}, ValueError, "conflict: expected one of 'inside', 'all', 'matched', got 'max_iou'"),
        ({"at_least_one": 1}, TypeError, "at_least_one: expected True or False, got 1"),
        ({"norm_eps": -1.0}, ValueError, "norm_eps: expected a number >= 0, got -1.0"),
    ],
)  # fmt: skip
def test_wrong_arguments_of_the_matching_alone_are_refused(changes, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        topk_matching(**{"metric": METRIC, "overlap": METRIC, **changes})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"alpha": -0.5}, ValueError, "alpha: expected a number >= 0, got -0.5"),
        ({"alpha": 65}, ValueError, "alpha: expected a number up to 64, got 65.0"),
        ({"beta": 0}, ValueError, "beta: expected a number > 0, got 0"),
        ({"beta": NAN}, ValueError, "beta: expected a finite number, got nan"),
        ({"topk": True}, TypeError, "topk: expected an integer, got True"),
        ({"topk2": 11}, ValueError, "topk2: expected at most topk = 10, got 11"),
        ({"overlap": "giou"}, ValueError, "overlap: expected one of 'iou', 'ciou', 'probiou', got 'giou'"),
        ({"score": "joint"}, ValueError, "score: expected one of 'sigmoid', 'prob', got 'joint'"),
        ({"margin": "1"}, TypeError, "margin: expected a number, got '1' of type str"),
        ({"inclusive": 1}, TypeError, "inclusive: expected True or False, got 1"),
        ({"max_reach": 0.0}, ValueError, "max_reach: expected a number > 0, got 0.0"),
        ({"min_side_below": 20}, ValueError, "min_side_to: expected at least min_side_below = 20.0, got 16.0"),
        ({"union_rule": "max"}, ValueError, "union_rule: overlap 'ciou' adds union_eps to what it divides by; use union_rule='add' with union_eps above 0"),
        ({"overlap": "probiou", "pool": "all"}, ValueError, "overlap: 'probiou' goes with max_reach=None and pool='inside'"),
        ({"prior_offset": 8}, ValueError, "prior_offset: expected 0.0 for corners of cells, 0.5 for centres, at most 1, got 8.0"),
        ({"preset": "yolo"}, ValueError, "preset: expected None or one of 'tal', "),
        ({"candidate_topk": 3}, TypeError, "candidate_topk: no such field of TaskAlignedConfig; known fields: 'alpha', 'beta', 'topk'"),
    ],
)  # fmt: skip
def test_wrong_fields_of_a_task_aligned_configuration_are_refused(options, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        TaskAlignedConfig(**options) if "preset" in options else TaskAlignedConfig.tal(**options)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([], TypeError, "out: expected a torch.Tensor, got list"),
        (torch.zeros(B, C, P), ValueError, "out: expected [B, P, C] = [2, 6, 3], got [2, 3, 6]"),
        (torch.zeros(B, P, C).long(), ValueError, "out: expected a floating dtype (float16, bfloat16, float32, float64), got torch.int64; use out.float()"),
        (torch.zeros(B, P, C, device=META), ValueError, "out: expected device cpu, got meta; use result.to(out.device)"),
    ],
)  # fmt: skip
def test_target_scores_refuse_an_output_that_does_not_fit(out, error, message):
    result = call(inputs(config="tal"), TaskAlignedAssigner)
    with pytest.raises(error, match="^" + re.escape(message)):
        result.target_scores(out)


# validate=False: shapes, dtypes and devices are looked at, values are not


VALUES = [
    case
    for case in CASES
    if any(words in case[3] for words in ("finite", "labels in", "strides >", "probabilities in"))
]


@pytest.mark.parametrize(
    ("form", "changes", "error", "message"),
    VALUES,
    ids=[f"{form}-{i}" for i, (form, _, _, _) in enumerate(VALUES)],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_values_are_not_looked_at_on_request(backend, form, changes, error, message):
    call({**inputs(form), **changes, "validate": False, "backend": backend, **objectness(changes)})


def objectness(changes):
    config = changes.get("config")
    return {"obj_logits": OBJ} if config is not None and config.score == "joint" else {}


CALLS = [
    (preset, backend)
    for preset in ("rtmdet", "yolox", "seed", "tal", "yolov6")
    for backend in BACKENDS
    if config_of(preset).variety in BACKENDS[backend].load
]


@pytest.mark.parametrize("form", ["list", "padded", "packed"])
@pytest.mark.parametrize(("preset", "backend"), CALLS)
def test_without_validation_a_wrong_gt_takes_no_part(preset, form, backend):
    config = config_of(preset)
    assigner = assigner_of(config, backend=backend, validate=False)
    for seed in (1, 22, 25, 43) if backend in QUICK else (140,):
        scene = make_scene(seed)
        if config.rule == "task_aligned":
            scene.gt_centers = None
        wrong = [torch.arange(len(boxes)) % 3 == 1 for boxes in scene.gt_boxes]
        kept = without(scene, wrong)
        spoil(scene, wrong)
        result, clean = scene.call(assigner, form), kept.call(assigner_of(config, backend=backend))
        for b, bad in enumerate(wrong):
            place = (~bad).nonzero().flatten()  # place of the i-th gt that is left among all
            expected = clean.gt_index[b]
            if len(place):
                expected = torch.where(expected >= 0, place[expected.clamp(min=0)], -1)
            assert result.gt_index[b].tolist() == expected.tolist()
            assert result.labels[b].tolist() == clean.labels[b].tolist()
            k = result.to_image(b).dynamic_k[: len(bad)]
            assert k[bad].tolist() == [0] * int(bad.sum())
            assert k[~bad].tolist() == clean.to_image(b).dynamic_k.tolist()
        assert any(bool(bad.any()) for bad in wrong)


def without(scene, wrong):
    """The scene without these gts."""
    again = make_scene(scene.seed)
    again.gt_centers = scene.gt_centers
    again.gt_boxes = [boxes[~bad] for boxes, bad in zip(again.gt_boxes, wrong, strict=True)]
    again.gt_labels = [labels[~bad] for labels, bad in zip(again.gt_labels, wrong, strict=True)]
    if again.gt_centers is not None:
        again.gt_centers = [centers[~bad] for centers, bad in zip(again.gt_centers, wrong, strict=True)]
    return again


def spoil(scene, wrong):
    """Make these gts such that they would be refused, in every way there is."""
    for b, bad in enumerate(wrong):
        for i, g in enumerate(bad.nonzero().flatten().tolist()):
            if i % 3 == 0:
                scene.gt_boxes[b][g, i % 4] = (NAN, INF, -INF)[i % 3]
            elif i % 3 == 1:
                scene.gt_labels[b][g] = (-1, scene.num_classes, 1 << 40, -(1 << 62))[i % 4]
            else:
                scene.gt_boxes[b][g] = torch.tensor([-1e30, -1e30, 1e30, 1e30])


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_validation_a_wrong_prior_takes_no_part(backend):
    for preset in ("rtmdet", "yolox_main", "seed", "tal"):
        config = config_of(preset)
        if config.variety not in BACKENDS[backend].load:
            continue
        scene = make_scene(22)
        scene.candidate_mask = None
        if config.rule == "task_aligned":
            scene.gt_centers = None
        assigner = assigner_of(config, backend=backend, validate=False)
        bad = torch.arange(len(scene.priors)) % 7 == 2
        expected = scene.call(assigner, candidate_mask=~bad)
        for i, p in enumerate(bad.nonzero().flatten().tolist()):
            scene.priors[p, i % 4] = (NAN, INF, -INF)[i % 3] if i % 4 < 2 else (0.0, -8.0, NAN)[i % 3]
        result = scene.call(assigner)
        assert torch.equal(result.gt_index, expected.gt_index)
        assert torch.equal(result.dynamic_k, expected.dynamic_k)
        assert int(result.num_pos.sum()) > 5


@pytest.mark.parametrize("validate", [False, None])
def test_offsets_on_the_host_are_always_looked_at(validate):
    with pytest.raises(ValueError, match="gt_offsets: expected row numbers from 0"):
        call({**inputs("packed"), "gt_offsets": torch.tensor([0, 9, 4]), "validate": validate})
