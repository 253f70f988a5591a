"""The memories that a seat can hold (section 3; Rae et al. 2019): of each its configuration, its module and its state.

A state is a frozen dataclass of tensors with a row a stream. Whatever it is, layers `detach` and `reset` it, several
batches' are `joined`, and knock-outs read it `emptied` or with its rows `exchanged`.
"""

from typing import Annotated, assert_never, get_args

from pydantic import BaseModel, Field

from infty.memory.compressive import CompressedState, CompressiveMemory, CompressiveMemoryConfig
from infty.memory.longterm import LongTermMemory, LongTermMemoryConfig, LongTermState

MemoryConfig = LongTermMemoryConfig | CompressiveMemoryConfig
LongRangeConfig = Annotated[MemoryConfig, Field(discriminator="kind")]
LongRange = LongTermMemory | CompressiveMemory
LongRangeState = LongTermState | CompressedState

KINDS: dict[str, type[BaseModel]] = {kind.model_fields["kind"].default: kind for kind in get_args(MemoryConfig)}


def build_memory(config: MemoryConfig | None) -> LongRange | None:
    """Build the memory of these sizes, if any (section 3; Rae et al. 2019)."""
    match config:
        case None:
            return None
        case LongTermMemoryConfig():
            return LongTermMemory(config)
        case CompressiveMemoryConfig():
            return CompressiveMemory(config)
        case _:
            assert_never(config)
