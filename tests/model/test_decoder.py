"""One decoder with four configurations: what it sees, what it may not see, and where gradients flow."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from infty.base.batch import UNSCORED, Batch
from infty.memory.longterm import LongTermState
from infty.model.config import DecoderConfig
from infty.model.decoder import Decoder
from infty.model.interface import unroll
from infty.model.memory_layer import LayerState
from infty.model.recurrent import RecurrentDecoder
from infty.model.short_term import ShortTermState
from infty.model.tensors import state_tensors
from tests.memory.kinds import EVERY, ROWS, SIGNAL

# Distinct primes: vocabulary 17, batch 3, segment 5, heads 2, head size 11, feed-forward 23, centres 7, widths 2.
VOCAB, BATCH, SEGMENT = 17, 3, 5
BASE: dict[str, Any] = {
    "num_layers": 2,
    "num_heads": 2,
    "hidden_size": 22,
    "feed_forward_size": 23,
    "dropout": 0.0,
    "initial_std": 0.2,
    "segment_length": SEGMENT,
    "short_term_length": SEGMENT,
}
MEMORIES: dict[str, Any] = {
    "transformer-xl": None,
    "rmt": None,
    **{name: EVERY[name] for name in ROWS},
}


def make(memory: str, **changes: Any) -> Decoder:
    tokens = {"memory_tokens": 3} if memory == "rmt" else {}
    config = DecoderConfig(**{**BASE, "long_range": MEMORIES[memory], **tokens, **changes})
    return (RecurrentDecoder if tokens else Decoder)(config, VOCAB)


def segments(count: int, batch: int = BATCH) -> list[Tensor]:
    return [torch.randint(VOCAB, (batch, SEGMENT)) for _ in range(count)]


def run(model: Decoder, parts: list[Tensor]) -> Tensor:
    state, logits = model.initial_state(torch.arange(len(parts[0]))), []
    for tokens in parts:
        output = model(tokens, state)
        state = output.state
        logits.append(output.logits)
    return torch.cat(logits, 1)


def tensors(state: tuple[LayerState, ...]) -> list[Tensor]:
    """Everything a state holds but keys and values, which may be made anew."""
    return list(state_tensors(state).values())


def test_two_segments_with_a_full_cache_equal_one_long_segment(float64: None) -> None:
    short = make("transformer-xl")
    long = make("transformer-xl", segment_length=2 * SEGMENT)
    long.load_state_dict(short.state_dict())
    parts = segments(2)
    torch.testing.assert_close(run(short, parts), run(long, [torch.cat(parts, 1)]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("memory", MEMORIES)
def test_no_later_token_changes_an_earlier_logit(float64: None, memory: str) -> None:
    """By gradient: the logits at i depend on the embeddings of this segment's tokens up to i, and no later one."""
    model, parts = make(memory), segments(4)
    state = model.initial_state(torch.arange(BATCH))
    for tokens in parts[:-1]:
        state = model(tokens, state).state
    seen: list[Tensor] = []
    model.embedding.register_forward_hook(lambda _m, _i, out: seen.append(out.requires_grad_()) or None)
    logits = model(parts[-1], state).logits
    for i in range(SEGMENT):
        (gradient,) = torch.autograd.grad(logits[:, i].square().sum(), seen[-1], retain_graph=True)
        reach = gradient.abs().sum((0, 2))
        assert (reach[: i + 1] > 0).all()
        assert (reach[i + 1 :] == 0).all()


@pytest.mark.parametrize("memory", MEMORIES)
def test_only_a_long_memory_reaches_beyond_the_layers_caches(float64: None, memory: str) -> None:
    """Two layers, each with a cache of one segment, see two segments back: the first of four only by memory."""
    model, parts = make(memory), segments(4)
    others = [(parts[0] + 1) % VOCAB, *parts[1:]]
    changed = (run(model, parts) - run(model, others))[:, -SEGMENT:].abs().max()
    assert (changed > 1e-9) == (memory != "transformer-xl")


@pytest.mark.parametrize(
    ("memory", "trained"), [("compressive", "compress"), ("infty", "gate"), ("infty-sticky", "gate")]
)
def test_the_task_loss_trains_the_gate_and_the_compressor(memory: str, trained: str) -> None:
    model, parts = make(memory), segments(3)
    state = model.initial_state(torch.arange(BATCH))
    for tokens in parts[:-1]:
        state = model(tokens, state).state
    output = model(parts[-1], state)
    F.cross_entropy(output.logits.mT, parts[-1]).backward()
    for block in model.blocks:
        gradient = getattr(block.long_range, trained).weight.grad
        assert gradient.abs().max() > 0


def test_the_reconstruction_loss_trains_the_compressor_only() -> None:
    model, parts = make("compressive"), segments(3)
    state = model.initial_state(torch.arange(BATCH))
    for tokens in parts[:-1]:
        state = model(tokens, state).state
    model(parts[-1], state).auxiliary["reconstruction"].backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert touched == {f"blocks.{i}.long_range.compress.{kind}" for i in range(2) for kind in ("weight", "bias")}


@pytest.mark.parametrize("memory", MEMORIES)
def test_losses_are_named_and_come_with_a_memory_and_a_gradient(memory: str) -> None:
    model, parts = make(memory), segments(3)
    state = model.initial_state(torch.arange(BATCH))
    names = []
    for tokens in parts:
        output = model(tokens, state)
        state = output.state
        names.append(set(output.auxiliary))
    expected = set(model.config.auxiliary_weights)
    assert names == [set(), set(), expected]
    with torch.no_grad():
        assert model(parts[0], state).auxiliary == {}


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("wanted", [0, 2])
def test_asking_for_fewer_logits_changes_nothing_else(float64: None, memory: str, wanted: int) -> None:
    """Logits of the last positions, next states, auxiliary losses and gradients are those of asking all."""
    model, parts = make(memory), segments(4)
    state = model.initial_state(torch.arange(BATCH))
    for tokens in parts[:-1]:
        with torch.no_grad():
            state = model(tokens, state, wanted=wanted).state
    outputs, gradients = [], []
    for asked in (wanted, None):
        output = model(parts[-1], state, wanted=asked)
        losses = [
            output.logits[:, SEGMENT - wanted :].square().sum() if asked is None else output.logits.square().sum()
        ]
        losses += output.auxiliary.values()
        outputs.append(output)
        gradients.append(torch.autograd.grad(losses, list(model.parameters()), allow_unused=True))
    few, every = outputs
    torch.testing.assert_close(few.logits, every.logits[:, SEGMENT - wanted :], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(few.auxiliary, every.auxiliary, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(tensors(few.state), tensors(every.state), rtol=1e-10, atol=1e-12)
    for one, other in zip(*gradients, strict=True):
        if one is not None and other is not None:
            torch.testing.assert_close(one, other)
        else:
            assert all(gradient is None or not gradient.any() for gradient in (one, other))


@pytest.mark.parametrize("memory", MEMORIES)
def test_kept_keys_and_values_change_nothing(float64: None, memory: str) -> None:
    """Without a gradient those of the short-term memory are kept; taken away, they are made anew, and equal."""
    model, parts = make(memory, short_term_length=2 * SEGMENT), segments(6)
    state = again = model.initial_state(torch.arange(BATCH))
    with torch.no_grad():
        for tokens in parts:
            output = model(tokens, state)
            state = output.state
            assert all(layer.short_term.key_value is not None for layer in state[-len(model.blocks) :])
            anew = model(tokens, again)
            again = tuple(replace(layer, short_term=ShortTermState(layer.short_term.hidden)) for layer in anew.state)
            torch.testing.assert_close(output.logits, anew.logits, rtol=1e-10, atol=1e-12)


def test_keys_and_values_of_older_weights_are_not_used_where_a_gradient_flows() -> None:
    model, parts = make("transformer-xl"), segments(2)
    with torch.no_grad():
        state = model(parts[0], model.initial_state(torch.arange(BATCH))).state
        for parameter in model.parameters():
            parameter += 0.1
    bare = tuple(replace(layer, short_term=ShortTermState(layer.short_term.hidden)) for layer in state)
    output = model(parts[1], state)
    assert torch.equal(output.logits, model(parts[1], bare).logits)
    assert all(layer.short_term.key_value is None for layer in output.state)


def test_positions_made_once_serve_every_segment(float64: None) -> None:
    model, parts = make("infty"), segments(4)
    state, positions = model.initial_state(torch.arange(BATCH)), model.positions()
    logits = []
    for tokens in parts:
        output = model(tokens, state, positions)
        state = output.state
        logits.append(output.logits)
    assert torch.equal(torch.cat(logits, 1), run(model, parts))


@pytest.mark.parametrize("memory", MEMORIES)
def test_returned_states_carry_no_gradient(memory: str) -> None:
    model, batch = make(memory), Batch(tokens := torch.cat(segments(4), 1), tokens, torch.arange(BATCH))
    for output, _ in unroll(model, batch.segments(SEGMENT)):
        assert output.hidden.requires_grad
        assert not any(tensor.requires_grad for tensor in tensors(output.state))


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_stream_does_not_depend_on_its_batch(float64: None, memory: str) -> None:
    model, parts = make(memory), segments(5)
    state = model.initial_state(torch.tensor([2]))
    alone = []
    for tokens in parts:
        output = model(tokens[2:], state)
        state = output.state
        alone.append(output.logits)
    torch.testing.assert_close(run(model, parts)[2:], torch.cat(alone, 1), rtol=1e-9, atol=1e-11)


def test_a_sticky_memory_remembers_where_each_segment_looked() -> None:
    model, parts = make("infty-sticky"), segments(4)
    state, histograms = model.initial_state(torch.arange(BATCH)), []
    for tokens in parts:
        state = model(tokens, state).state
        memory = state[0].long_range
        assert isinstance(memory, LongTermState)
        histograms.append(memory.histogram)
    assert torch.equal(histograms[1], torch.full((BATCH, 29), 1 / 29))  # nothing was read before the first eviction
    assert not torch.allclose(histograms[2], histograms[1])
    assert not torch.allclose(histograms[3], histograms[2])


def test_every_layer_of_every_stream_draws_for_itself() -> None:
    seeds = []
    for layer in make("infty-sticky", num_layers=3).initial_state(torch.tensor([4, 5, 11])):
        assert isinstance(layer.long_range, LongTermState)
        seeds += layer.long_range.seeds.tolist()
    assert len(set(seeds)) == 9


def test_every_dropout_is_used() -> None:
    model = make("transformer-xl", dropout=0.5, attention_dropout=0.5)
    used: list[int] = []
    dropouts = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    for module in dropouts:
        module.register_forward_hook(lambda m, _i, _o: used.append(id(m)))
    model(segments(1)[0], model.initial_state(torch.arange(BATCH)))
    assert {id(module) for module in dropouts} == set(used)
    assert len(dropouts) == 1 + 2 * 4  # embeddings and encodings; attention, its weights and two of the feed-forward


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_state_stops_growing(memory: str) -> None:
    model, parts = make(memory), segments(9)
    state, sizes = model.initial_state(torch.arange(BATCH)), []
    for tokens in parts:
        state = model(tokens, state).state
        sizes.append(sum(tensor.numel() for tensor in tensors(state)))
    assert len(set(sizes[-3:])) == 1


def test_rows_have_equal_slots_and_share_their_sizes() -> None:
    infty, xl = make("infty").config, make("transformer-xl", short_term_length=SEGMENT + 14).config
    assert infty.memory_slots == xl.memory_slots == SEGMENT + 14
    assert infty.long_range is not None
    assert infty.long_range.hidden_size == 22


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 23}, "multiple of num_heads"),
        ({"hidden_size": 21, "num_heads": 3}, "must be even"),
        ({"short_term_length": 7, "long_range": SIGNAL}, "takes in whole segments"),
        ({"long_range": {**SIGNAL, "hidden_size": 44}}, "differs from hidden_size"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**{**BASE, **changes})


def test_unroll_runs_unscored_segments_without_gradient_and_yields_scored_ones() -> None:
    model = make("infty")
    tokens = torch.randint(VOCAB, (BATCH, 3 * SEGMENT + 2))
    targets = torch.full_like(tokens, UNSCORED)
    targets[:, -3:] = tokens[:, -3:]
    batch = Batch(tokens, targets, torch.arange(BATCH))
    with_gradient: list[bool] = []
    model.blocks[0].register_forward_hook(lambda _m, _i, out: with_gradient.append(out[0].requires_grad))
    found = [(output.logits.shape[1], wanted) for output, wanted in unroll(model, batch.segments(SEGMENT))]
    assert with_gradient == [False, False, True, True]
    assert [length for length, _ in found] == [1, 2]  # of each segment only what is scored, and what follows it
    assert torch.equal(torch.cat([wanted.targets for _, wanted in found], 1), targets[:, -3:])


def test_a_state_of_another_memory_is_refused() -> None:
    state = make("transformer-xl").initial_state(torch.arange(BATCH))
    with pytest.raises(TypeError, match="a state of NoneType for a memory of LongTermMemory"):
        make("infty")(segments(1)[0], state)


def test_position_encodings_are_exact_in_float64(float64: None) -> None:
    exact = make("transformer-xl").encoding
    torch.set_default_dtype(torch.float32)
    assert torch.equal(make("transformer-xl").double().encoding, exact)


def test_the_whole_model_moves_to_float64_and_to_the_meta_device() -> None:
    for memory in MEMORIES:
        with torch.device("meta"):
            model = make(memory)
        assert {t.device.type for t in [*model.parameters(), *model.buffers()]} == {"meta"}
        model = make(memory).double()
        assert {t.dtype for t in [*model.parameters(), *model.buffers()]} == {torch.float64}
