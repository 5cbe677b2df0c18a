"""Every mutant finds the text that it replaces: what moves or is rewritten takes its mutants along."""

from pathlib import Path

import pytest

from tests.programs.stream_mutants import KERNELS_FOLDER, MUTANTS, Mutant
from tests.programs.torch_mutants import MUTANTS as OF_TORCH


@pytest.mark.parametrize("mutant", [*MUTANTS, *OF_TORCH], ids=lambda mutant: mutant.name)
def test_the_text_is_there(mutant: Mutant):
    assert mutant.old in Path(KERNELS_FOLDER, mutant.file).read_text()
    assert mutant.old != mutant.new
