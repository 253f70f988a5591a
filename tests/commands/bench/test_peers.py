"""Other packages' models at our sizes, as the bench runs them. No timing is judged here."""

from pathlib import Path

import pytest
import torch
from torch import nn

from infty.base.errors import MissingError
from infty.commands.bench import peers
from infty.commands.bench.contestants import resolve_alike
from infty.commands.bench.measures import MEMORIES
from infty.commands.bench.peers import PEERS, Peer
from infty.config.definition import CellKey, open_experiment
from infty.experiment import Experiment, resolve
from infty.model.config import DecoderConfig

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
VOCAB = 6


def resolve_smoke() -> Experiment:
    return resolve(open_experiment("sort", Path()), CellKey("sort", "smoke", "infty", "x4", 0)).experiment


def build(name: str) -> tuple[DecoderConfig, nn.Module, peers.Read]:
    torch.manual_seed(0)
    config = DecoderConfig.model_validate(resolve_smoke().model.model_dump())
    return config, *PEERS[name].build(config, VOCAB)


@pytest.mark.parametrize("name", PEERS)
def test_what_a_peer_carries_on_is_read_in_later_segments(name: str) -> None:
    config, model, read = build(name)
    model.eval()
    for parameter_name, parameter in model.named_parameters():  # a gate that begins all but shut opens
        if "head_gates" in parameter_name:
            nn.init.zeros_(parameter)
    first, other, second = torch.randint(0, VOCAB, (3, 1, config.segment_length)).unbind()
    with torch.no_grad():
        logits, alone = (read(second, memory)[0] for memory in (read(first, None)[1], None))
        changed, _ = read(second, read(other, None)[1])
    assert logits.shape == (1, config.segment_length, VOCAB)
    assert not torch.allclose(logits, changed)
    assert not torch.allclose(logits, alone)


@pytest.mark.parametrize("name", PEERS)
def test_no_token_sees_a_later_one(name: str) -> None:
    config, model, read = build(name)
    model.eval()
    tokens = torch.randint(0, VOCAB, (1, config.segment_length))
    changed = tokens.clone()
    changed[:, -1] = (tokens[:, -1] + 1) % VOCAB
    with torch.no_grad():
        found = [read(each, None)[0][:, :-1] for each in (tokens, changed)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", PEERS)
def test_a_step_reads_as_many_tokens_as_ours_and_trains(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, built, build_peer = resolve_smoke(), [], PEERS[name].build
    monkeypatch.setitem(PEERS, name, Peer("", lambda *sizes: built.append(build_peer(*sizes)) or built[0], ""))
    step = peers.make_step(name, experiment)
    before = {key: value.clone() for key, value in built[0][0].state_dict().items()}
    assert step() == {"tokens": 4 * (59 + 5)}
    after = built[0][0].state_dict()
    assert any(not torch.equal(after[key], value) for key, value in before.items())


def test_a_compressive_peer_no_longer_trains_keys_and_values_once_it_compressed() -> None:
    # compressive-transformer-pytorch 0.4.0 detaches their weight in place, in training mode.
    config, model, read = build("compressive")
    weights = [value for key, value in model.named_parameters() if "to_kv" in key]
    memory, wanted = None, []
    for _ in range(3):
        _, memory = read(torch.randint(0, VOCAB, (1, config.segment_length)), memory)
        wanted.append({weight.requires_grad for weight in weights})
    assert wanted == [{True}, {False}, {False}]


def test_a_package_that_is_not_installed_is_named_before_anything_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "none", Peer("no-such-package", PEERS["infini"].build, ""))
    with pytest.raises(MissingError, match=r"no-such-package is not installed: pip install 'infty-former\[peers\]'"):
        peers.find_versions()


def test_every_memory_takes_the_step_that_a_peer_takes() -> None:
    config = open_experiment("sort", Path())
    assert {*MEMORIES} <= {*config.names("models")}
    for row in MEMORIES:
        experiment = resolve_alike("laptop", row)
        assert experiment.model.dropout == 0
        assert experiment.training.gradient_segments == 1
