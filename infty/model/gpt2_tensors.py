"""Refuse GPT-2 weights (Radford et al. 2019) that are not what their configuration says (section 4.2)."""

import re
from pathlib import Path

from safetensors import safe_open

from infty.base.errors import UsageError, flatten

WEIGHTS = "model.safetensors"
# The tensors of a GPT-2 language model, and its masks, which hold nothing that was learnt; "transformer." may precede.
LAYER = re.compile(r"h\.(\d+)\.(ln_[12]|attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.(weight|bias)")
WHOLE = ("wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias", "lm_head.weight")
MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
NUMBERS = ("F64", "F32", "F16", "BF16")  # as safetensors names types


def refuse_other_tensors(folder: Path, num_layers: int) -> None:
    """Refuse weights that hold more than a GPT-2 of so many layers, whose embedding is its output matrix too.

    Raises:
        UsageError: They do; the message says what, and what to do.
        OSError: The file can't be read.
        SafetensorError: It is no safetensors file.
    """
    # The names and types of what was learnt, and both ends of the model.
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        names = {name: name.removeprefix("transformer.") for name in file.keys()}  # noqa: SIM118
        learnt = {name: part for name, part in names.items() if not MASK.fullmatch(part)}
        layers = {part: int(found[1]) for part in learnt.values() if (found := LAYER.fullmatch(part))}
        others = sorted(name for name, part in learnt.items() if part not in layers and part not in WHOLE)
        kinds = {name: file.get_slice(name).get_dtype() for name in learnt}
        odd = sorted(name for name, kind in kinds.items() if kind not in NUMBERS)
        whole = {part: name for name, part in learnt.items() if part in WHOLE}
        own = False
        if "lm_head.weight" in whole and "wte.weight" in whole:
            head, embedding = (file.get_tensor(whole[part]) for part in ("lm_head.weight", "wte.weight"))
            own = head.shape != embedding.shape or not bool((head == embedding).all())

    # What is left out in silence, or put in the place of something else, makes another model of it.
    faults = []
    if (count := max(layers.values(), default=-1) + 1) > num_layers:
        faults.append(
            f"they are of {count} layers, not {num_layers} (n_layer in config.json, --set model.num_layers={count})"
        )
    if others:
        mend = "GPT2LMHeadModel.from_pretrained(…).save_pretrained(FOLDER) leaves it out"
        faults.append(f"they hold {flatten(', '.join(others[:3]))}, which no GPT-2 language model has ({mend})")
    if odd:
        faults.append(f"{flatten(odd[0])} is of type {kinds[odd[0]]}; wanted {', '.join(NUMBERS)}")
    if len(set(learnt.values())) < len(learnt):
        faults.append("they hold tensors twice, with and without 'transformer.' before their names")
    if own:
        faults.append("lm_head.weight differs from wte.weight, and in models here the embedding is the output matrix")
    if faults:
        raise UsageError(f"{folder / WEIGHTS} does not fit: {'; '.join(faults)}")
