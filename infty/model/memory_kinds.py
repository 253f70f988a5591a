"""List the memories that a layer can have (M6, M12): each is a kind of configuration, which builds it."""

from typing import Annotated, get_args

from pydantic import Field

from infty.memory.compressive import CompressiveMemoryConfig
from infty.memory.contract import MemoryConfig
from infty.memory.longterm import LongTermMemoryConfig

AnyMemoryConfig = LongTermMemoryConfig | CompressiveMemoryConfig
LongRangeConfig = Annotated[AnyMemoryConfig, Field(discriminator="kind")]
KINDS: dict[str, type[MemoryConfig]] = {kind.model_fields["kind"].default: kind for kind in get_args(AnyMemoryConfig)}
