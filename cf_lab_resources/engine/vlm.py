"""Audited models that answer: generative vision-language models, through transformers.

Any folder that `AutoModelForImageTextToText` loads and whose answers follow the prompt in one row
of tokens: LLaVA, Qwen-VL, Idefics and their like. The prompt is the model's own chat template where
it has one. Nothing is downloaded, no code of the folder is run, and weights are safetensors or they
are refused.

An option is scored in one forward pass over prompt and option, which takes a model that can't see
later tokens from earlier ones. Some do see them, as PaliGemma does within all that it takes for the
prompt: it would be given away to them what they are to guess. This is tried out when a model is
loaded, and such a one is asked in open format only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cf_lab_resources.engine.audited import plain
from cf_lab_resources.engine.contract import Ask, Audited
from cf_lab_resources.engine.families import families
from cf_lab_resources.engine.folders import folder_files, folder_hash
from cf_lab_resources.engine.questions import (
    FORCED_CHOICE,
    OPEN,
    Choice,
    NotFinite,
    Question,
    choose,
)

if TYPE_CHECKING:
    import torch
    from PIL import Image

# Mean movement of a token's logits by later tokens, in their standard deviations: rounding in half
# precision moves them by about a hundredth, tokens that are seen by more than this.
SEEN = 0.05


class _Sequence(NamedTuple):
    """What is scored: an answer after a prompt that has the picture's place in it."""

    image: Image.Image
    prompt: str
    answer: str


@dataclass(frozen=True)
class GenerativeModel(Audited):
    """A loaded model with its processor; made by `loading.load_generative`.

    Attributes:
        folder: where it was loaded from.
        model_type: transformers' name of the architecture, such as `llava`.
        device: where it runs.
        batch: sequences a forward pass.
        formats: without forced choice where options can't be scored.
    """

    folder: Path
    model_type: str
    device: str
    batch: int
    _model: Any = field(repr=False)
    _processor: Any = field(repr=False)
    formats: tuple[str, ...] = (FORCED_CHOICE, OPEN)

    def choose(self, question: Question) -> Ask[Choice]:
        """A function that scores all options in all orders; see `questions`."""
        import numpy as np

        prompts = [self.prompt(question.prompt(order)) for order in question.orders]
        count = len(question.options)

        def ask(images: Sequence[Image.Image]) -> list[Choice]:
            scores = self._likelihoods(
                [
                    _Sequence(image, prompt, option)
                    for image in images
                    for prompt in prompts
                    for option in question.options
                ]
            )
            blocks = np.array(scores).reshape(len(images), count, count)
            return [choose(question, block) for block in blocks]

        return ask

    def speak(self, text: str, max_tokens: int) -> Ask[str]:
        """A function that answers greedily: the likeliest token each time, nothing is drawn."""
        prompt = self.prompt(text)

        def ask(images: Sequence[Image.Image]) -> list[str]:
            parts = [images[one : one + self.batch] for one in range(0, len(images), self.batch)]
            return [answer for part in parts for answer in self._speak(prompt, part, max_tokens)]

        return ask

    def prompt(self, text: str) -> str:
        """The whole prompt of a question, with the picture's place in it."""
        if getattr(self._processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": text}]
            return str(
                self._processor.apply_chat_template(
                    [{"role": "user", "content": content}],
                    add_generation_prompt=True,
                    tokenize=False,
                )
            )
        place = getattr(self._processor, "image_token", None)
        return f"{place}\n{text}\nAnswer:" if place else f"{text}\nAnswer:"

    def describe(self) -> dict[str, Any]:
        """See `Audited.describe`."""
        config = self._model.config
        return {
            "model_type": self.model_type,
            "families": list(families(config)),
            "architectures": list(config.architectures or []),
            "parameters": sum(weights.numel() for weights in self._model.parameters()),
            "dimension": None,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "image_processor": plain(self._processor.image_processor.to_dict()),
            "tokenizer": type(self._processor.tokenizer).__name__,
            "chat_template": bool(getattr(self._processor, "chat_template", None)),
            "sha256": folder_hash(self.folder),
            "files": folder_files(self.folder),
        }

    def _inputs(self, texts: Sequence[str], images: Sequence[Image.Image], side: str) -> Any:
        inputs = self._processor(
            text=list(texts),
            images=[[image.convert("RGB")] for image in images],
            padding=True,
            padding_side=side,
            add_special_tokens=self._adds_special_tokens(texts[0]),
            return_tensors="pt",
        )
        inputs.pop("labels", None)  # PaliGemma's processor makes some, and a loss would be computed
        return inputs.to(self.device, self._model.dtype)

    def _adds_special_tokens(self, text: str) -> bool:
        """Whether the tokenizer is to add the token of the beginning, which some templates hold."""
        begin = self._processor.tokenizer.bos_token
        return not (begin and text.startswith(begin))

    def _likelihoods(self, sequences: Sequence[_Sequence]) -> list[float]:
        import torch

        found: list[float] = []
        with torch.inference_mode():
            for start in range(0, len(sequences), self.batch):
                found += self._forward(sequences[start : start + self.batch])
        return found

    def _forward(self, sequences: Sequence[_Sequence]) -> list[float]:
        texts = [whole_text(one.prompt, one.answer) for one in sequences]
        # Padded on the right: positions of the left-padded would differ in some architectures.
        inputs = self._inputs(texts, [one.image for one in sequences], "right")
        logits = self._model(**inputs).logits
        ids, lengths = inputs["input_ids"], inputs["attention_mask"].sum(dim=1).tolist()
        return [
            _mean_log_likelihood(ids[row], logits[row], length, self._answer_tokens(one, text))
            for row, (one, text, length) in enumerate(zip(sequences, texts, lengths, strict=True))
        ]

    def scores_options(self) -> bool:
        """Whether there are logits for each token, which those of later tokens don't move."""
        import torch
        from PIL import Image

        picture, text = Image.new("RGB", (224, 224), "grey"), whole_text(self.prompt("?"), "yes")
        seen = []
        with torch.inference_mode():
            for one in (text, f"{text} no no"):
                inputs = self._inputs([one], [picture], "right")
                seen.append((inputs["input_ids"][0], self._model(**inputs).logits[0].float()))
        (ids, short), (more, long) = seen
        if len(short) != len(ids) or len(long) != len(more):
            return False
        last = int((ids == more[: len(ids)]).cumprod(0).sum()) - 1
        moved = (short[last] - long[last]).abs().mean() / short[last].std()
        # Not "less than": where weights are no numbers, each answer says so by itself.
        return not bool(moved > SEEN)

    def _answer_tokens(self, one: _Sequence, text: str) -> int:
        """How many tokens the answer adds, told without the picture, which stands before it.

        Text is tokenised as a whole, since an answer's first token may depend on what precedes
        it; the answer is what follows the longest common beginning.
        """
        special = self._adds_special_tokens(text)
        before, whole = self._processor.tokenizer([one.prompt, text], add_special_tokens=special)[
            "input_ids"
        ]
        pairs = zip(before, whole, strict=False)
        return len(whole) - sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _speak(self, prompt: str, images: Sequence[Image.Image], max_tokens: int) -> list[str]:
        import torch

        # Padded on the left, so that every answer begins where the prompts end.
        inputs = self._inputs([prompt] * len(images), images, "left")
        made = self._model.generate(
            **inputs,
            max_new_tokens=max_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=self._processor.tokenizer.pad_token_id,
            return_dict_in_generate=True,
            output_logits=True,
        )
        if not all(bool(torch.isfinite(logits).all()) for logits in made.logits):
            raise NotFinite("the likelihood of a token is not a finite number")
        new = made.sequences[:, inputs["input_ids"].shape[1] :]
        texts = self._processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [str(text).strip() for text in texts]


def whole_text(prompt: str, answer: str) -> str:
    """Prompt and answer as one text, apart by a space unless the prompt ends in white space."""
    return f"{prompt}{'' if prompt[-1:].isspace() else ' '}{answer}"


def _mean_log_likelihood(
    ids: torch.Tensor, logits: torch.Tensor, length: int, answer: int
) -> float:
    """Mean over the last `answer` of `length` tokens of each one's log-likelihood, in nats.

    Args:
        ids: tokens, (padded length,).
        logits: (padded length, vocabulary); those at a place are of the token after it.
        length: tokens before the padding.
        answer: tokens of the answer.
    """
    import torch

    if answer < 1:
        raise NotFinite("the tokenizer makes no token of an option")
    places = torch.log_softmax(logits[length - answer - 1 : length - 1].float(), dim=-1)
    return float(places.gather(1, ids[length - answer : length, None]).mean())
