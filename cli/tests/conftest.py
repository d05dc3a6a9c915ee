"""What tests of several commands start from."""

import pytest

from tests.reference import tiny
from tests.reference.checkpoint import write_checkpoint
from tests.reference.float_model import from_quantized


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    file = tiny.make("plain")
    write_checkpoint(path, tiny.SPECS["plain"], from_quantized(file.weights(), file.inputs()))
    return path
