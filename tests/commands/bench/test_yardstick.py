"""The decoder's whole training step against one written plainly, and what a yardstick must offer."""

from pathlib import Path
from types import ModuleType

import pytest
import torch

from infty.base.errors import MissingError, UsageError
from infty.commands.bench.yardstick import build_its_model, compare_steps, load_yardstick, translate
from infty.memory.longterm import LongTermMemoryConfig
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from tests import plain_model

PLAIN = Path(plain_model.__file__)
VOCAB, BATCH = 7, 3
CONFIG = DecoderConfig(
    num_layers=2, num_heads=2, hidden_size=22, feed_forward_size=13, dropout=0.1, segment_length=11,
    short_term_length=11,
    long_range=LongTermMemoryConfig(
        hidden_size=22, num_heads=2, segment_length=11, num_basis=34, num_samples=34, kl_weight=1e-6
    ),
)  # fmt: skip


@pytest.mark.parametrize("length", [3 * 11 + 3, 4 * 11 + 6, 6 * 11])
def test_a_step_equals_the_plain_one_in_float64(float64: None, length: int) -> None:
    """Loss and every gradient of a whole step: embedding to logits, three to seven segments, gate to KL."""
    assert max(compare_steps(plain_model, CONFIG, VOCAB, length, BATCH).values()) < 1e-9


def test_a_step_equals_the_plain_one_in_float32() -> None:
    found = compare_steps(plain_model, CONFIG, VOCAB, 4 * 11 + 6, BATCH)
    assert max(found["loss"], found["gradient"]) < 1e-5


def test_a_wrong_yardstick_disagrees(float64: None) -> None:
    """The comparison can fail: with another weight of the KL the gradients differ."""
    wrong = ModuleType("wrong")
    vars(wrong).update(vars(plain_model))
    wrong.step = lambda *given: plain_model.step(*given, kl_weight=1e-2)  # pyright: ignore[reportAttributeAccessIssue]
    found = compare_steps(wrong, CONFIG, VOCAB, 4 * 11 + 6, BATCH)
    assert found["gradient"] > 1e-4


def test_every_weight_has_its_counterpart() -> None:
    ours, theirs = Decoder(CONFIG, VOCAB), build_its_model(plain_model, CONFIG, VOCAB, 0.0)
    translated = translate(theirs.state_dict())
    assert {name: value.shape for name, value in translated.items()} == {
        name: value.shape for name, value in ours.state_dict().items()
    }
    assert sum(value.numel() for value in translated.values()) == sum(p.numel() for p in theirs.parameters())


def test_the_file_is_run_as_a_module() -> None:
    assert load_yardstick(PLAIN).LiteralMemory(6, 2, 4, 3)(*torch.randn(2, 1, 3, 6), None)[0].shape == (1, 3, 6)


def test_a_file_that_offers_too_little_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("def step(): ...\n")
    with pytest.raises(UsageError, match="lacks LiteralModel, LiteralMemory"):
        load_yardstick(tmp_path / "empty.py")
    with pytest.raises(MissingError, match="no such file"):
        load_yardstick(tmp_path / "none.py")
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(UsageError, match="wanted a Python file"):
        load_yardstick(tmp_path / "text.txt")
