"""Configuration of the counterfactual assets, from Dagster or from a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field, ValidationError

from cf_lab_assets.counterfactuals.generation import GenerationSettings
from cf_lab_resources.engine.editors import EditorSettings
from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    from cf_lab_assets.counterfactuals.targets import Target


class PlanFileError(LabError):
    """A file with the edit plan's configuration that can't be taken; the message says why."""


class SamplingConfig(dg.Config):
    """A target distribution of the accepted sets; see `targets.Target`."""

    target: str = Field(
        default="",
        description="uniform, as_the_world (as the sources are), weights or marginals; empty draws "
        "everything that is planned",
    )
    over: list[str] = Field(
        default=[], description="attributes, or extra columns such as occupation, of the cells"
    )
    total_sets: int = Field(default=1000, gt=0, description="accepted sets that are wanted")
    max_sets: int = Field(default=0, ge=0, description="most sets that are drawn; 0 for no bound")
    seed: int = Field(default=0, ge=0, description="of the order of the sources within a cell")
    weights: dict[str, float] = Field(
        default={}, description="for target weights: of cells, such as woman+old"
    )
    marginals: dict[str, dict[str, float]] = Field(
        default={}, description="for target marginals: by name and value"
    )

    def as_target(self) -> "Target | None":
        """The target, None where everything is drawn.

        Raises:
            TargetError: the target is of no known kind, or over nothing.
        """
        from cf_lab_assets.counterfactuals.targets import parse_target

        if not self.target:
            return None
        return parse_target(
            self.target,
            over=tuple(self.over),
            total=self.total_sets,
            budget=self.max_sets or None,
            seed=self.seed,
            weights=dict(self.weights),
            marginals={name: dict(values) for name, values in self.marginals.items()},
        )


class EditPlanConfig(dg.Config):
    """Which attributes are varied, and what the accepted sets should look like."""

    attributes: list[str] = Field(
        default=["gender", "age", "skin_tone"],
        description="attributes that are varied; several joined by +, such as gender+age, are an "
        "intersection",
    )
    sampling: SamplingConfig = SamplingConfig()


class GenerationConfig(dg.Config):
    """How candidates are drawn."""

    steps: int = Field(default=2, gt=0, description="denoising steps")
    guidance_scale: float = Field(default=1.0, ge=1.0, description="1 is no guidance")
    image_guidance_scale: float = Field(default=1.0, ge=1.0, description="1 is no guidance")
    batch_size: int = Field(default=8, gt=0, description="candidates drawn at once")
    size: int = Field(
        default=0, ge=0, description="edge of pictures in pixels; 0 is the pipeline's"
    )
    guidance_start: float = Field(default=0.0, ge=0, le=1, description="share of unguided steps")
    guidance_end: float = Field(default=1.0, ge=0, le=1, description="share after which none is")
    solver: Literal["own", "ddim", "dpm++", "euler", "unipc"] = Field(
        default="own", description="the pipeline's own scheduler or another"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="of the weights; auto is half on a GPU"
    )
    compiled: bool = Field(default=False, description="compile the UNet")
    int8: bool = Field(default=False, description="weight-only quantisation; needs torchao")
    channels_last: bool = Field(default=True, description="memory layout of the convolutions")
    share_from: float = Field(
        default=0.1, ge=0, le=1, description="from captions: least share of steps that share"
    )
    share_to: float = Field(
        default=0.9, ge=0, le=1, description="from captions: largest share of steps that share"
    )
    guidance_spread: float = Field(
        default=0.0, ge=0, description="from captions: what a draw adds at most to the guidance"
    )
    accepted_licence: str = Field(
        default="", description="name of a non-commercial licence that you may use"
    )
    max_draws: int = Field(
        default=6, gt=0, description="most draws of an edit; fewer where more would not help"
    )
    chunk_sources: int = Field(
        default=16, gt=0, description="sources a resumable chunk; more fill batches better"
    )

    @property
    def editor(self) -> EditorSettings:
        """The editor's part."""
        names = EditorSettings.__dataclass_fields__.keys() & type(self).model_fields.keys()
        return EditorSettings(**{name: getattr(self, name) for name in names})

    @property
    def generation(self) -> GenerationSettings:
        """The streaming step's part."""
        return GenerationSettings(self.max_draws, self.chunk_sources)


def read_plan_file(path: Path) -> dict[str, Any]:
    """Configuration of the edit plan from a YAML file, its fields checked.

    Raises:
        PlanFileError: the file can't be read, or a field is unknown or of the wrong kind.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PlanFileError(f"{path} can't be read as YAML: {error}") from error
    if not isinstance(document, dict):
        raise PlanFileError(f"{path} must hold fields such as `attributes` and `sampling`")
    # Dagster's configuration leaves out unknown fields without a word.
    unknown = [name for name in document if name not in EditPlanConfig.model_fields]
    nested = document.get("sampling")
    if isinstance(nested, dict):
        unknown += [f"sampling.{n}" for n in nested if n not in SamplingConfig.model_fields]
    if unknown:
        raise PlanFileError(f"{path}: there is no field {', '.join(map(str, unknown))}")
    try:
        return EditPlanConfig(**document).model_dump()
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise PlanFileError(f"{path}: {faults}") from error
