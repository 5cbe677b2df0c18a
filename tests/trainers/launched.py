"""Ranks started by a package's own launcher, one step each: ``python -m tests.trainers.launched PACKAGE
FOLDER [patch]``.

With ``patch`` this process patches the package before it launches. Each rank writes whether it was patched,
and its losses, as ``FOLDER/<rank>.pt``. No launcher lets ranks run without CUDA; where there is none, those
of yolox are told that there is.
"""

from __future__ import annotations

import importlib
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

HEADS = {"yolox": "yolox.models.yolo_head", "libreyolo": "libreyolo.models.yolox.nn"}
RANKS = 2

if (
    __name__ in ("__main__", "__mp_main__") and not torch.cuda.is_available()
):  # a rank of yolox's asserts CUDA, on which it runs nothing
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: RANKS
    torch.cuda.set_device = lambda device: None


def main() -> None:
    """Launch the ranks."""
    package, folder, *patch = sys.argv[1:]
    if patch:
        importlib.import_module(f"simota_triton.integrations.{package}").patch()
    {"yolox": launch_yolox, "libreyolo": launch_libreyolo}[package](folder)


def launch_yolox(folder: str) -> None:
    """As ``tools/train.py`` does; the second argument holds the command line."""
    launch = importlib.import_module("yolox.core").launch
    launch(yolox_rank, RANKS, backend="gloo", dist_url="auto", args=(folder, Namespace(cache=False)))


def launch_libreyolo(folder: str) -> None:
    """As ``train(device="0,1")`` does once it has looked for CUDA: a coordinator in a process of its own,
    which spawns the ranks.
    """
    spawn = importlib.import_module("libreyolo.training.distributed").spawn_ddp_train
    rank = importlib.import_module(
        "tests.trainers.launched"
    ).libreyolo_rank  # not __main__'s, which no rank of libreyolo imports
    spawn(rank, (folder,), RANKS, str(Path(folder) / "result.json"))


def yolox_rank(folder: str, options: Namespace) -> None:
    """A rank of yolox's launcher, which has made the process group."""
    step("yolox", folder)


def libreyolo_rank(rank: int, world: int, address: str, port: int, result_path: str, folder: str) -> None:
    """A rank of libreyolo's launcher, which makes the process group as libreyolo's trainer does."""
    importlib.import_module("libreyolo.training.distributed").init_distributed()
    step("libreyolo", folder)
    dist.destroy_process_group()


def step(package: str, folder: str) -> None:
    """Two steps under DistributedDataParallel: as this process was started, and by the original."""
    torch.set_num_threads(1)
    module = importlib.import_module(HEADS[package])
    integration = importlib.import_module(f"simota_triton.integrations.{package}")
    head = make_head(getattr(module, "YoloxHead", None) or module.YOLOXHead)
    report: dict[str, Any] = {
        "patched": integration.is_patched(),
        "world": dist.get_world_size(),
        "losses": [],
    }
    for unpatch in (False, True):
        if unpatch:
            report["calls"] = integration.calls()
            integration.unpatch()
        network = DistributedDataParallel(head)
        loss = total(network, dist.get_rank())
        loss.backward()
        gradient = torch.cat(
            [parameter.grad.flatten() for parameter in head.parameters() if parameter.grad is not None]
        )
        report["losses"].append((loss.item(), gradient.norm().item()))
        head.zero_grad()
    torch.save(report, Path(folder) / f"{dist.get_rank()}.pt")


def make_head(head: type[nn.Module]) -> nn.Module:
    """A tiny head with the same weights in every rank."""
    torch.manual_seed(0)
    made = head(3, width=1 / 64, in_channels=[256, 512, 1024])
    made.train()
    return made


def total(network: nn.Module, rank: int) -> Tensor:
    """The loss of a rank's two images of 64 px."""
    torch.manual_seed(rank)
    maps = [torch.randn(2, 4 * 2**level, 8 >> level, 8 >> level) for level in range(3)]
    sizes = 16 + 16 * torch.rand(2, 4, 2)
    labels = torch.cat(
        [torch.randint(3, (2, 4, 1)).float(), 16 + 32 * torch.rand(2, 4, 2), sizes], 2
    )  # [B, G, 5]
    losses = network(maps, labels, torch.zeros(2, 3, 64, 64))
    loss: Tensor = losses["total_loss"] if isinstance(losses, dict) else losses[0]
    return loss


if __name__ == "__main__":
    main()
