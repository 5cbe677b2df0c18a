"""For the processes of ``launched.py``: what their packages import beside what is run there, as blanks where
it is not installed.
"""

import importlib.util
import sys

from tests.peers.loading import Blanks

UNUSED = {
    name: blanks
    for name, *blanks in (
        ("torchvision", "torchvision"),
        ("thop", "thop"),
        ("tensorboard", "tensorboard", "torch.utils.tensorboard"),
    )
}
"""Package -> modules that need it."""

sys.meta_path.insert(
    0,
    Blanks(
        *(
            blank
            for name, blanks in UNUSED.items()
            if importlib.util.find_spec(name) is None
            for blank in blanks
        )
    ),
)
