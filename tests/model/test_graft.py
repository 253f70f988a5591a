"""GPT-2 with memories grafted on: what stays Hugging Face's own, and what the memories add."""

from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from infty.base.batch import Batch
from infty.base.errors import MissingError
from infty.memory.cache import CacheMemory
from infty.memory.compressive import CompressiveMemory
from infty.memory.longterm import LongTermMemory
from infty.memory.summary import SummaryMemory
from infty.model.config import Gpt2ModelConfig
from infty.model.gpt2 import build_gpt2, from_pretrained, save_pretrained
from infty.model.graft import Graft
from infty.model.interface import State, unroll
from infty.model.tensors import load_state, load_weights, state_tensors, weight_tensors
from tests.memory.kinds import EVERY

BATCH, LENGTH, VOCAB, HIDDEN, LAYERS, HEADS = 3, 8, 53, 22, 2, 2
LONG_TERM = {"kind": "long_term", "num_basis": 10, "num_samples": 7, "contraction": 0.5, "widths": [0.05, 0.1]}
OTHERS = ("mean", "delta", "slots", "cache")
MEMORIES: dict[str, dict[str, Any] | None] = {
    "gpt2": None,
    "compressive": {"kind": "compressive", "num_slots": 6, "compression_rate": 4},
    "infty": LONG_TERM,
    "infty-sticky": {**LONG_TERM, "sticky": {"num_bins": 16}},
    **{name: EVERY[name] for name in OTHERS},
}


def config(row: str, **changes: Any) -> Gpt2ModelConfig:
    sizes = {"num_layers": LAYERS, "num_heads": HEADS, "hidden_size": HIDDEN, "num_positions": 11, "dropout": 0.0}
    values = {"kind": "gpt2", **sizes, "segment_length": LENGTH, "long_range": MEMORIES[row], **changes}
    return Gpt2ModelConfig.model_validate(values)


def make(row: str, **changes: Any) -> Graft:
    torch.manual_seed(5)
    model = build_gpt2(config(row, **changes), VOCAB).double().eval()
    for name, parameter in model.base.named_parameters():
        if name.endswith("bias"):  # Hugging Face's are zero at first, and could be forgotten unnoticed
            nn.init.normal_(parameter, std=0.3)
    return model


def segments(count: int, length: int = LENGTH) -> list[Tensor]:
    return list(torch.randint(VOCAB, (count, BATCH, length), generator=torch.Generator().manual_seed(3)))


def read(model: Graft, parts: list[Tensor], state: State | None = None) -> tuple[list[Tensor], State]:
    state, logits = state or model.initial_state(torch.arange(len(parts[0]))), []
    for tokens in parts:
        output = model(tokens, state)
        state = output.state
        logits.append(output.logits)
    return logits, state


@pytest.mark.parametrize("row", ["infty", "infty-sticky"])
def test_with_a_zeroed_output_projection_it_is_hugging_face_s_gpt2(row: str) -> None:
    """In float32, over several blocks, against a model of Hugging Face's that never saw ours."""
    model = make(row).float()
    plain = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=11, n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS))
    plain.load_state_dict(model.base.state_dict())
    plain.eval()
    for block in model.memory_layers:
        assert isinstance(block.long_range, LongTermMemory)
    with_memory, _ = read(model, segments(5))
    for block in model.memory_layers:
        assert isinstance(block.long_range, LongTermMemory)
        nn.init.zeros_(block.long_range.output.weight)
    zeroed, _ = read(model, segments(5))
    for i, tokens in enumerate(segments(5)):
        torch.testing.assert_close(zeroed[i], plain(tokens).logits, atol=1e-5, rtol=0)
        assert ((with_memory[i] - zeroed[i]).abs().max() > 1e-4) == (i > 0)  # the first block has no past


def test_without_a_memory_it_is_gpt2_and_called_without_memories_the_decoder_is_what_it_was() -> None:
    for row in MEMORIES:
        model = make(row)
        logits, _ = read(model, segments(3))
        for part, tokens in zip(logits, segments(3), strict=True):
            plain = model.base(tokens).logits
            assert torch.equal(part, plain) == (row == "gpt2" or part is logits[0])


def count_products(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("row", ["infty", "infty-sticky"])
def test_a_memory_costs_its_update_and_its_reading_and_no_query_twice(row: str) -> None:
    model, (first, second) = make(row), segments(2)
    x, memory = torch.randn(BATCH, LENGTH, HIDDEN).double(), model.memory_layers[0].long_range
    assert memory is not None
    with torch.no_grad():
        state = model(first, model.initial_state(torch.arange(BATCH))).state
        known, _ = memory.advance(state[0].long_range, x, None, lambda *_: x)
        entering = count_products(lambda: memory.advance(state[0].long_range, x, None, lambda *_: x))
        reading = count_products(lambda: memory.read(x, x, known))
        bare = count_products(lambda: model.base(second))
        assert reading > entering > 0
        assert count_products(lambda: model(second, state).logits) == bare + LAYERS * (entering + reading)


def test_another_thread_s_call_is_not_taken_for_one_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (first, second, other) = make("infty"), segments(3)
    with torch.no_grad():
        state = model(first, model.initial_state(torch.arange(BATCH))).state
        alone = model(second, state).logits
        layer: Any = model.blocks[0]
        attend = layer.original

        def attend_after_another(*args: Any, **options: Any) -> Any:
            monkeypatch.setattr(layer, "original", attend)
            thread = Thread(target=torch.no_grad()(model.base), args=(other,))
            thread.start()
            thread.join()
            return attend(*args, **options)

        monkeypatch.setattr(layer, "original", attend_after_another)
        assert torch.equal(model(second, state).logits, alone)


def own_parameters(row: str) -> int:
    square, slots = HIDDEN * HIDDEN, HEADS * EVERY["slots"]["num_slots"]
    others = {
        "gpt2": 0,
        "compressive": 4 * square + HIDDEN,
        "mean": square,
        "delta": 3 * square + 3 * HEADS * (HIDDEN + 1),
        "slots": 3 * square + slots * (HIDDEN + 1),
        "cache": 3 * square + HEADS,
    }
    return LAYERS * others.get(row, 6 * square + HIDDEN + 2 * 10)


@pytest.mark.parametrize("row", MEMORIES)
def test_only_the_declared_parameters_are_new(row: str) -> None:
    """Gate 3 E² + E, W_K, W_V, W_O 3 E², w_μ and w_σ 2 N; compressor c E² + E; all else are GPT-2's, by name.

    The other memories: W_O, but for a mean W_K and W_V, and gates: three a head, one a slot, or a number a head.
    """
    model = make(row)
    plain = {f"base.{name}" for name, _ in GPT2LMHeadModel(model.base.config).named_parameters()}
    new = {name: parameter for name, parameter in model.named_parameters() if name not in plain}
    assert plain <= dict(model.named_parameters()).keys()
    assert all(name.split(".")[2] == "long_range" for name in new)
    assert sum(parameter.numel() for parameter in new.values()) == own_parameters(row)
    assert {id(p) for p in new.values()} == {id(p) for p in model.memory_parameters()}


@pytest.mark.parametrize("row", MEMORIES)
def test_a_saved_folder_is_hugging_face_s_and_comes_back_with_its_memories(row: str, tmp_path: Path) -> None:
    model = make(row).float()
    save_pretrained(model, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix not in (".json", ".safetensors")]
    plain, info = GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)  # pyright: ignore
    assert not any(info.values())
    tokens = segments(1)[0]
    torch.testing.assert_close(plain.eval()(tokens).logits, model.base(tokens).logits)
    again = from_pretrained(tmp_path).eval()
    for mine, theirs in zip(read(model, segments(4))[0], read(again, segments(4))[0], strict=True):
        torch.testing.assert_close(mine, theirs)


def test_weights_of_others_are_refused_in_one_line(tmp_path: Path) -> None:
    model = make("infty").float()
    save_pretrained(model, tmp_path)
    for changes in ({"num_layers": 3}, {"hidden_size": 24}):
        with pytest.raises(MissingError, match="holds no weights of this GPT-2"):
            make("infty", **changes).float().load_decoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04]\x94.")
    with pytest.raises(MissingError, match="holds no weights of this GPT-2"):
        model.load_decoder(tmp_path)


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def attention_input(model: Graft, index: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's normed input, and its query, key and value, by Hugging Face's modules alone."""
    layer = model.base.transformer.h[index]
    normed = layer.ln_1(x)
    return normed, layer.attn.c_attn(normed)


def longhand(model: Graft, parts: list[Tensor]) -> list[Tensor]:
    """Each block by hand: the memory's update and read, or its slots among the keys, as the equations say."""
    core, outputs = model.base.transformer, []
    past: list[Any] = [None] * LAYERS
    slots_of = [torch.zeros(BATCH, 0, HIDDEN)] * LAYERS
    known: list[Any] = [block.initial_state(torch.arange(BATCH) * LAYERS + i, core.wpe.weight[0]).long_range
                        for i, block in enumerate(model.memory_layers)]  # fmt: skip
    for tokens in parts:
        x = core.wte(tokens) + core.wpe(torch.arange(tokens.shape[1]))
        for i, (layer, block) in enumerate(zip(core.h, model.memory_layers, strict=True)):
            normed, projected = attention_input(model, i, x)
            query, key, value = projected.chunk(3, -1)
            memory, read = block.long_range, 0
            keys, values, count = heads(key), heads(value), 0
            if isinstance(memory, LongTermMemory) and past[i] is not None:
                known[i] = memory.update(known[i], past[i])
                read, density = memory.attend(query, known[i])
                known[i] = memory.observe(known[i], density)
            if isinstance(memory, SummaryMemory | CacheMemory) and past[i] is not None:
                known[i], _ = memory.advance(known[i], past[i], None, lambda _, vectors: vectors)
                read, _, _ = memory.read(query, normed, known[i])
            if isinstance(memory, CompressiveMemory) and past[i] is not None:
                new = F.conv1d(past[i].mT, memory.compress.weight, memory.compress.bias, stride=memory.compress.stride)
                slots = torch.cat([slots_of[i], new.mT], 1)[:, -memory.config.num_slots :]
                slots_of[i] = slots
                _, slot_keys, slot_values = layer.attn.c_attn(slots.contiguous()).chunk(3, -1)
                keys, values = torch.cat([heads(slot_keys), keys], 2), torch.cat([heads(slot_values), values], 2)
                count = slots.shape[1]
            scores = heads(query) @ keys.mT / (HIDDEN // HEADS) ** 0.5
            later = torch.ones(tokens.shape[1], tokens.shape[1]).triu(1).bool()
            scores = scores.masked_fill(F.pad(later, (count, 0)), -torch.inf)
            context = layer.attn.c_proj((scores.softmax(-1) @ values).transpose(1, 2).flatten(-2))
            x = x + context + read
            x = x + layer.mlp(layer.ln_2(x))
            past[i] = normed
        outputs.append(model.base.lm_head(core.ln_f(x)))
    return outputs


@pytest.mark.parametrize("row", MEMORIES)
def test_it_computes_what_the_equations_say(row: str) -> None:
    model = make(row)
    for block in model.memory_layers:
        for parameter in block.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        for mine, theirs in zip(read(model, segments(5))[0], longhand(model, segments(5)), strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("row", ["compressive", "infty", "infty-sticky", *OTHERS])
def test_the_task_trains_every_memory_and_the_past_only_through_it(row: str) -> None:
    model = make(row)
    first, second, third = segments(3)
    batch = Batch(tokens := torch.cat([first, second], 1), tokens, torch.arange(BATCH))
    *_, (output, _) = unroll(model, batch.segments(LENGTH))
    state = output.state
    assert not any(tensor.requires_grad for tensor in state_tensors(state).values())
    model(third, state).nats(third).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_reconstruction_loss_trains_the_compressor_only() -> None:
    model = make("compressive")
    first, second = segments(2)
    output = model(second, model(first, model.initial_state(torch.arange(BATCH))).state)
    output.auxiliary["reconstruction"].backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {f"blocks.{i}.long_range.compress.{part}" for i in range(LAYERS) for part in ("weight", "bias")}


@pytest.mark.parametrize("row", ["compressive", "infty", "infty-sticky", *OTHERS])
def test_rows_that_begin_anew_are_as_if_alone(row: str) -> None:
    """One row of the batch starts a document at the third block; it must know nothing, the others all, of the past."""
    model = make(row)
    parts, fresh = segments(5), torch.tensor([False, True, False])
    _, state = read(model, parts[:2])
    together, _ = read(model, parts[2:], model.reset(state, fresh, torch.tensor([0, 7, 2])))
    alone, _ = read(model, [tokens[1:2] for tokens in parts[2:]], model.initial_state(torch.tensor([7])))
    torch.testing.assert_close(together[-1][1:2], alone[-1])
    torch.testing.assert_close(together[-1][[0, 2]], read(model, parts)[0][-1][[0, 2]])


@pytest.mark.parametrize("row", MEMORIES)
def test_a_state_and_weights_come_back_from_their_tensors(row: str) -> None:
    model = make(row)
    _, state = read(model, segments(3))
    again = load_state(model, state_tensors(state))
    tokens = segments(4)[3]
    assert torch.equal(model(tokens, state).logits, model(tokens, again).logits)
    kept = weight_tensors(model)
    assert len({tensor.data_ptr() for tensor in kept.values()}) == len(kept)
    other = build_gpt2(config(row), VOCAB).double().eval()
    load_weights(other, kept)
    assert torch.equal(other(tokens, state).logits, model(tokens, state).logits)
    with pytest.raises(RuntimeError, match="another model"):
        load_weights(other, {name: tensor for name, tensor in kept.items() if "ln_f" not in name})


class LlamaFamily:
    """A second family, to show what an adapter takes: one with keys and values fewer than queries."""

    def layers(self, decoder: Any) -> list[nn.Module]:
        return list(decoder.model.layers)

    def attention(self, layer: Any) -> nn.Module:
        return layer.self_attn

    def queries(self, attention: Any, x: Tensor) -> Tensor:
        return attention.q_proj(x)

    def query_part(self, attention: Any) -> tuple[nn.Module, slice]:
        return attention.q_proj, slice(None)

    def key_values(self, attention: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        size = attention.head_dim
        parts = (
            heads.unflatten(-1, (-1, size)).transpose(1, 2) for heads in (attention.k_proj(x), attention.v_proj(x))
        )
        key, value = parts
        return key, value

    def places(self, decoder: Any, layer: Any) -> None:
        return None

    def load(self, decoder: Any, folder: Path) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("row", ["gpt2", "compressive", "infty"])
def test_another_family_takes_one_small_adapter(row: str) -> None:
    torch.manual_seed(2)
    sizes: dict[str, Any] = {
        "hidden_size": 24,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 16,
    }
    base = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, num_hidden_layers=2, max_position_embeddings=32, **sizes))
    model = Graft(config(row, hidden_size=24, num_heads=4), base, LlamaFamily()).eval()
    logits, _ = read(model, segments(3))
    for i, tokens in enumerate(segments(3)):
        same = torch.allclose(logits[i], base(tokens).logits, atol=1e-6)
        assert same == (row == "gpt2" or i == 0)


def test_a_block_longer_than_the_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="segment_length 12 is above num_positions 11"):
        config("infty", segment_length=12)


def test_the_checkpoint_holds_a_shared_matrix_once(tmp_path: Path) -> None:
    model = make("infty").float()
    names = weight_tensors(model).keys()
    assert ("base.transformer.wte.weight" in names) != ("base.lm_head.weight" in names)
    save_pretrained(model, tmp_path)
    assert all(name.startswith(("0.long_range", "1.long_range")) for name in load_file(tmp_path / "memory.safetensors"))
