"""Pair scores and the CITS of a candidate.

The four similarities are InstructPix2Pix's (Brooks et al. 2022, section 3.1.2), with unit-norm
embeddings E of a scorer, source picture I0 with caption T0, candidate I1 with caption T1:

    sim_0   = cos(E(I0), E(T0))          sim_1   = cos(E(I1), E(T1))
    sim_img = cos(E(I0), E(I1))          sim_dir = cos(E(I1) - E(I0), E(T1) - E(T0))

``preservation`` is the mean SSIM (Wang et al. 2004) to the source over the part of the picture
that changed least. The Counterfactual Image-Text Score is a logistic function of alignment
(sim_1 - sim_0), direction (sim_dir) and preservation with weights that are never negative, so
it rises with each of them and lies in (0, 1). Its weights are fitted on the starter world,
where it is known which candidates are right (`cf_lab_assets.starter.calibration`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cf_lab_resources.engine.pictures import as_array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from cf_lab_resources.engine.audited import AuditedModel
    from cf_lab_resources.engine.scorers import AttributeClassifier

# The largest part of a picture that an edit is expected to change. Of a portrait's picture the
# head with long hair covers about a third; the rest must stay as it was.
EDITED_SHARE = 0.4
# Scores are kept to four decimals: what lies below differs between processors.
DECIMALS = 4
# The two scorers' names in a candidate's reasons.
CLASSIFIER, ENCODER = "classifier", "encoder"
# Sentences whose embedding a judge keeps: of large models, some four kilobytes each.
TEXTS_KEPT = 4096


@dataclass(frozen=True)
class Calibration:
    """Weights of the CITS.

    Attributes:
        alignment: weight of sim_1 - sim_0, not negative.
        direction: weight of sim_dir, not negative.
        preservation: weight of preservation, not negative.
        bias: the constant.
        placebo_direction: stands in for sim_dir where the captions are the same and it has no
            meaning: the mean of right counterfactuals.
        threshold: least CITS of a pair that is accepted.
    """

    alignment: float
    direction: float
    preservation: float
    bias: float
    placebo_direction: float
    threshold: float

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a calibration file; entries that are no weights are left aside."""
        stored = json.loads(path.read_text())
        return cls(**{name: float(stored[name]) for name in cls.__dataclass_fields__})

    def cits(
        self,
        alignment: NDArray[np.float32],
        direction: NDArray[np.float32],
        preservation: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """The CITS of pairs; all arrays of shape (pairs,), NaN direction marks placebos."""
        import numpy as np

        known = np.where(np.isnan(direction), self.placebo_direction, direction)
        rising = (
            self.bias
            + self.alignment * alignment
            + self.direction * known
            + self.preservation * preservation
        )
        return np.asarray(1.0 / (1.0 + np.exp(-rising)), dtype=np.float32)

    def as_dict(self) -> dict[str, float]:
        """The weights by name."""
        return asdict(self)


@dataclass(frozen=True)
class Pair:
    """A candidate with what it came from.

    Attributes:
        source: the source picture at the editor's size, or the base of the same draw.
        candidate: the picture drawn.
        source_caption: T0.
        caption: T1; the same as T0 for a placebo or base.
        values: the attribute values that the candidate must show.
    """

    source: Image.Image
    candidate: Image.Image
    source_caption: str
    caption: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class Miss:
    """What a scorer saw of a candidate instead of what was asked for; written as a sentence.

    Attributes:
        scorer: ``classifier`` or ``encoder``.
        attribute: of which.
        seen: the value that it saw.
        wanted: the value that was asked for.
    """

    scorer: str
    attribute: str
    seen: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.scorer} saw {self.attribute} {self.seen} instead of {self.wanted}"

    @classmethod
    def parse(cls, reason: str) -> Miss | None:
        """Read the sentence back; None for a reason of another kind."""
        found = re.fullmatch(r"(\w+) saw (\w+) (.+) instead of (.+)", reason)
        return cls(*found.groups()) if found else None


class Judge:
    """Two scorers of different families and a calibration."""

    def __init__(
        self,
        encoder: AuditedModel,
        classifier: AttributeClassifier,
        calibration: Calibration,
        prompts: Mapping[str, Mapping[str, str]],
    ) -> None:
        """Keep the scorers.

        Args:
            encoder: embeds pictures and texts.
            classifier: tells attribute values from a picture.
            calibration: of the CITS, for this encoder.
            prompts: for each attribute and value, the text of zero-shot detection.
        """
        self.encoder, self.classifier, self.calibration = encoder, classifier, calibration
        self._prompts = prompts
        self._texts: dict[str, NDArray[np.float32]] = {}

    def embed_texts(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Unit-norm embeddings, (n, d); the sentences of the last calls are embedded once."""
        import numpy as np

        if len(self._texts) > TEXTS_KEPT:
            self._texts.clear()
        fresh = [text for text in dict.fromkeys(sentences) if text not in self._texts]
        if fresh:
            self._texts.update(zip(fresh, self.encoder.embed_texts(fresh), strict=True))
        return np.stack([self._texts[text] for text in sentences])

    def score(self, pairs: Sequence[Pair]) -> list[dict[str, Any]]:
        """Scores of pairs, in their order.

        Returns:
            For each pair sim_0, sim_1, sim_dir (None for placebos), sim_img, preservation,
            cits, and ``missed``: which scorer did not see which attribute's value.
        """
        import numpy as np

        candidates = [pair.candidate for pair in pairs]
        image_0 = self._embed([pair.source for pair in pairs])
        image_1 = self._embed(candidates)
        text_0 = self.embed_texts([pair.source_caption for pair in pairs])
        text_1 = self.embed_texts([pair.caption for pair in pairs])
        columns = {
            "sim_0": (image_0 * text_0).sum(1),
            "sim_1": (image_1 * text_1).sum(1),
            "sim_dir": _cosine(image_1 - image_0, text_1 - text_0),
            "sim_img": (image_0 * image_1).sum(1),
            "preservation": preservation(
                as_array([pair.source for pair in pairs]), as_array(candidates)
            ),
        }
        columns["cits"] = self.calibration.cits(
            columns["sim_1"] - columns["sim_0"], columns["sim_dir"], columns["preservation"]
        )
        missed = self._missed(candidates, image_1, [pair.values for pair in pairs])
        rows = []
        for index in range(len(pairs)):
            row: dict[str, Any] = {
                name: None if np.isnan(column[index]) else round(float(column[index]), DECIMALS)
                for name, column in columns.items()
            }
            rows.append({**row, "missed": missed[index]})
        return rows

    def _embed(self, pictures: list[Image.Image]) -> NDArray[np.float32]:
        distinct = {id(picture): picture for picture in pictures}
        rows = {key: row for row, key in enumerate(distinct)}
        embedded = self.encoder.embed_images(list(distinct.values()), batch=128)
        return embedded[[rows[id(picture)] for picture in pictures]]

    def _missed(
        self,
        candidates: Sequence[Image.Image],
        embeddings: NDArray[np.float32],
        wanted: Sequence[Mapping[str, str]],
    ) -> list[list[str]]:
        from cf_lab_resources.engine.scorers import zero_shot

        by_classifier = self.classifier.detect(candidates)
        by_encoder: list[dict[str, str]] = [{} for _ in candidates]
        for attribute, prompts in self._prompts.items():
            texts = dict(zip(prompts, self.embed_texts(list(prompts.values())), strict=True))
            for found, value in zip(by_encoder, zero_shot(embeddings, texts), strict=True):
                found[attribute] = value
        seen = {CLASSIFIER: by_classifier, ENCODER: by_encoder}
        return [
            [
                str(Miss(scorer, attribute, found[index][attribute], value))
                for scorer, found in seen.items()
                for attribute, value in values.items()
                if found[index].get(attribute, value) != value
            ]
            for index, values in enumerate(wanted)
        ]


def _cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Row-wise cosine, NaN where one row is zero."""
    import numpy as np

    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = (first * second).sum(1)
    return np.where(lengths > 1e-6, products / np.maximum(lengths, 1e-6), np.nan)


def preservation(
    sources: NDArray[np.float32], candidates: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Mean SSIM over the part of each picture that changed least.

    Args:
        sources: (n, height, width, 3) in [0, 1].
        candidates: the same shape and range.

    Returns:
        (n,) in [-1, 1]: of each picture's SSIM map, the mean of all but the lowest
        `EDITED_SHARE`.
    """
    import numpy as np
    from skimage.metrics import structural_similarity

    result = np.empty(len(sources), dtype=np.float32)
    for index, (source, candidate) in enumerate(zip(sources, candidates, strict=True)):
        _, local = structural_similarity(
            source, candidate, channel_axis=2, data_range=1.0, full=True, win_size=7
        )
        similar = np.sort(local.mean(axis=2), axis=None)
        result[index] = similar[int(EDITED_SHARE * similar.size) :].mean()
    return result
