"""The starter models as assets: an autoencoder, an editor, scorers and audited models.

Making them takes hours on a laptop's CPU. The package ships the weights, so nothing depends on
these assets having been materialized; they write below the lab's own folder and never over the
shipped ones.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from cf_lab_assets import faces, names
from cf_lab_resources.settings import Settings

if TYPE_CHECKING:
    from cf_lab_assets.starter.factory import Course, Recipe

SHIPPED = "The weights ship with the lab: this is made only to make them anew."
ABOUT = {
    "autoencoder": "The editor's AutoencoderKL, trained on renderings of the starter world.",
    "editor": "An InstructPix2Pix trained on true counterfactual pairs of the starter world.",
    "scorers": "A SigLIP and a convolutional classifier of attributes, which judge candidates.",
    "audited_models": "Two CLIPs, one of a balanced world and one of a world skewed on purpose.",
    "manifest": "The CITS's calibration, the editor's measured errors, and every file's hash.",
}
NEEDS = {
    "autoencoder": [],
    "editor": ["autoencoder"],
    "scorers": [],
    "audited_models": [],
    "manifest": ["editor", "scorers", "audited_models"],
}


class TrainingConfig(dg.Config):
    """Where the models go, and how long they are trained."""

    into: str = Field(default="", description="folder; empty: starter/ below the lab's own")
    small: bool = Field(default=False, description="a few steps only, to try the way")

    @property
    def folder(self) -> Path:
        """Where the models go."""
        return Path(self.into) if self.into else Settings.from_env().home / "starter"

    @property
    def recipe(self) -> "Recipe":
        """How long they are trained."""
        from cf_lab_assets.starter import factory

        return factory.SMALL if self.small else factory.FULL


def _seen(folder: Path, course: "Course") -> dg.MarkdownMetadataValue:
    """The course of the losses, or where nothing was trained what the editor makes of portraits."""
    from cf_lab_assets import charts
    from cf_lab_assets.starter import factory

    if course.losses:
        plot = charts.lines(course.losses, "step", f"mean loss of {factory.SAY_EVERY} steps")
        return faces.picture(plot, "losses")
    return faces.picture((folder / factory.EXAMPLES).read_bytes(), "edits of unseen portraits")


def stage_asset(stage: str) -> dg.AssetsDefinition:
    """The asset of one training stage."""

    @dg.asset(
        key=dg.AssetKey([names.STARTER, stage]),
        deps=[dg.AssetKey([names.STARTER, needed]) for needed in NEEDS[stage]],
        group_name=names.STARTER,
        owners=names.OWNERS,
        kinds={"pytorch"},
        code_version="1",
        description=f"{ABOUT[stage]}\n\n{SHIPPED}",
        pool=names.GPU_POOL,
        op_tags=names.GPU_OP_TAGS,
    )
    def train(context: dg.AssetExecutionContext, config: TrainingConfig) -> dg.MaterializeResult:
        from cf_lab_assets.starter import factory

        config.folder.mkdir(parents=True, exist_ok=True)
        course = factory.Course(context.log.info)
        measured = factory.STAGES[stage](config.folder, config.recipe, course)
        return dg.MaterializeResult(
            metadata={
                **measured,
                "dagster/uri": config.folder.absolute().as_uri(),
                "seen": _seen(config.folder, course),
            }
        )

    return train


STARTER_ASSETS = [stage_asset(stage) for stage in ABOUT]
