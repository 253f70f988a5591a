"""Settings of the machine: folders, network, device, threads, W&B. Never a number that alters a result."""

import difflib
import os
import tomllib
import warnings
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from infty.base.errors import UsageError, one_line, suggest
from infty.config.faults import Fault, quote, raise_faults, reword

PREFIX = "INFTY_"
# INFTY_ variables that are no setting: see `infty.cli`, `infty.machine.launch` and `infty.machine.placement`.
OTHERS = ("DEBUG", "SLOT", "COMMIT")
# What W&B's own variable may say, and what it means.
WANDB_MODES = {"offline": "offline", "online": "online", "disabled": "disabled", "dryrun": "offline", "run": "online"}


class Settings(BaseSettings):
    """Default < nearest infty.toml up the tree < INFTY_* environment < option."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    runs: Path = Field(description="folder of the run folders")
    data: Path = Field(description="folder of corpora")
    auto_fetch: bool = Field(default=True, description="whether train may fetch a corpus that is missing")
    experiments: Path = Field(description="folder of your own experiment files")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    precision: Literal["float32", "tf32", "bf16"] = Field(
        default="float32",
        description="of products: float32, tf32 (GPUs) or bf16; the memory's stay float32, but tf32 in its gradient",
    )
    micro_batch: int | None = Field(
        default=None, gt=0, description="most training sequences at once on a device; changes dropout's draws only"
    )
    recompute: bool = Field(
        default=False, description="keep no activations within a layer: less memory, about a third more time"
    )
    compile: bool = Field(default=False, description="let torch.compile fuse what it can; the first steps take longer")
    threads: int | None = Field(
        default=None, gt=0, le=4096, description="CPU threads; by default as many as torch chooses"
    )
    wandb: Literal["offline", "online", "disabled"] = Field(
        default="offline", description="W&B mode; WANDB_MODE sets it too"
    )
    wandb_project: str = Field(default="infty", description="W&B project")

    @property
    def options(self) -> list[str]:
        """List the options that reproduce the same numbers on this machine: all that are not the default."""
        words = []
        for name in ("device", "precision", "micro_batch", "recompute", "compile", "threads"):
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return words

    @field_validator("runs", "data", "experiments")
    @classmethod
    def _expand_folder(cls, folder: Path) -> Path:
        """Read `~` as the home folder, even if no shell has expanded it."""
        if "\0" in str(folder):
            raise ValueError("wanted a folder")
        try:
            return folder.expanduser()
        except RuntimeError:
            raise ValueError("no such home folder") from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        *_: Any,
        **others: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: options, then environment, then the file."""
        return init_settings, env_settings, _TomlSource(settings_cls)


class _TomlSource(TomlConfigSettingsSource):
    """The nearest infty.toml, to which its folders are relative; without one, folders of the working directory."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        self.found = find_toml()
        super().__init__(settings_cls, toml_file=self.found or Path())

    def __call__(self) -> dict[str, Any]:
        root = self.found.parent if self.found else Path.cwd()
        made = root / "data" if self.found else root
        folders = {"runs": made / "runs", "data": made / "corpora", "experiments": root / "experiments"}
        values = {**folders, **super().__call__()}
        for key in folders:
            if isinstance(given := values[key], str) and not given.startswith("~"):
                values[key] = root / given
        return values


def find_toml() -> Path | None:
    """Find the nearest infty.toml from the working directory upwards."""
    here = Path.cwd()
    return next((path for folder in (here, *here.parents) if (path := folder / "infty.toml").is_file()), None)


def load_settings(**options: Any) -> Settings:
    """Load the settings of this machine; `None` options count as not given. UsageError with every fault."""
    _warn_of_unknown_variables()
    if (mode := os.environ.get("WANDB_MODE")) and not os.environ.get("INFTY_WANDB"):
        if mode not in WANDB_MODES:
            raise UsageError(f"WANDB_MODE={one_line(mode)}: {suggest(mode, WANDB_MODES)}")
        options = {"wandb": WANDB_MODES[mode], **options}
    try:
        return Settings(**{key: value for key, value in options.items() if value is not None})
    except ValidationError as error:
        raise_faults([_fault(detail) for detail in error.errors()])
        raise
    except (ValueError, RecursionError, OSError) as fault:  # of tomllib, and of the file itself
        raise UsageError(f"infty.toml: {one_line(str(fault))}") from None


def _warn_of_unknown_variables() -> None:
    """Warn once of each variable that looks like a setting and is none: what it was to change stays as it is."""
    known = (*map(str.upper, Settings.model_fields), *OTHERS)
    for variable in sorted(name for name, value in os.environ.items() if value and name.upper().startswith(PREFIX)):
        key = variable.upper().removeprefix(PREFIX)
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            advice = f"did you mean {PREFIX}{near[0]}?" if near else f"there is {', '.join(PREFIX + k for k in known)}"
            warnings.warn(f"{one_line(variable)} is no variable of infty; {advice}", stacklevel=1)


def find_origins(**options: Any) -> dict[str, str]:
    """Name the option, variable or file behind each setting that is not left to its default."""
    file, found = find_toml(), dict[str, str]()
    written = tomllib.loads(file.read_text(encoding="utf-8")) if file else {}
    for name in Settings.model_fields:
        variables = [f"INFTY_{name.upper()}", *(["WANDB_MODE"] if name == "wandb" else [])]
        said = [f"--{name.replace('_', '-')}"] if options.get(name) is not None else []
        said += [variable for variable in variables if os.environ.get(variable)]
        if said or name in written:
            found[name] = said[0] if said else str(file)
    return found


def _fault(detail: Any) -> Fault:
    key = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return Fault("infty.toml", key, f"unknown key; {suggest(key, Settings.model_fields)}")
    message = reword(detail)
    if detail["type"] == "string_pattern_mismatch":
        message = f"wanted {Settings.model_fields[key].description}"
    given = str(detail["input"]) if isinstance(detail["input"], Path) else detail["input"]
    return Fault("settings", key, f"{message}, got {quote(given)} (infty.toml, INFTY_{key.upper()} or option)")
