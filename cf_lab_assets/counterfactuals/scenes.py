"""What an editor starts from, and is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cf_lab_assets.sources.rows import MASK_KEY
from cf_lab_resources.engine.editors import Drawing, Member
from cf_lab_resources.engine.pictures import decode, square

if TYPE_CHECKING:
    from PIL import Image

    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.engine.editors import Editor


class Scene(NamedTuple):
    """A source at the editor's size: nothing where it draws from captions."""

    picture: Image.Image | None
    mask: Image.Image | None


def read_scene(bucket: Bucket, source: Mapping[str, Any], editor: Editor) -> Scene:
    """A source's picture, and its mask where the editor needs one.

    Raises:
        BucketKeyError: one of them is missing.
        ContentDamaged: one of them is not what its hash says.
    """
    if editor.draws_whole_sets:
        return Scene(None, None)
    picture = square(decode(bucket.get_content(source["image_key"])), editor.size)
    if editor.strategy != "inpainting":
        return Scene(picture, None)
    mask = square(decode(bucket.get_content(source["extra"][MASK_KEY])), editor.size)
    return Scene(picture, mask)


def drawing(edits: Sequence[Mapping[str, Any]], scene: Scene, draw: int) -> Drawing:
    """One draw of edits of one source, its base first where there is one."""
    members = tuple(Member(edit["caption"], edit["instruction"] or "") for edit in edits)
    return Drawing(edits[0]["source_id"], draw, members, *scene)
