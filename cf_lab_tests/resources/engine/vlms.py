"""Tiny generative vision-language models of real architectures, random and seeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WORDS = (
    "what is the occupation of person in this picture ? answer with one these only : , . a an "
    "doctor nurse pilot judge police officer user assistant shown dog cat it can not tell"
).split()
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
EDGE = 32
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    # Large enough that pictures and words make a difference to an untrained model.
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "image_size": EDGE,
    "patch_size": 16,
}


def tokenizer(*more: str) -> Any:
    """Words and single bytes, with the special tokens at ids 0 to 4."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(33, 127)]
    pieces = [*SPECIAL, *more]
    pieces += list(dict.fromkeys([*WORDS, *letters, *(f"##{c}" for c in letters)]))
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>", *more],
    )


def tiny_llava(folder: Path, seed: int = 0, template: str | None = TEMPLATE) -> Path:
    """A LLaVA of a CLIP tower and a LLaMA."""
    import torch
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    words = tokenizer()
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**VISION),
            text_config=LlamaConfig(vocab_size=len(words), **TEXT),
            image_token_id=words.convert_tokens_to_ids("<image>"),
            vision_feature_layer=-1,
        )
    )
    edge = {"height": EDGE, "width": EDGE}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=edge, crop_size=edge, do_center_crop=False),
        tokenizer=words,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    return _save(model, processor, folder)


def tiny_idefics3(folder: Path, seed: int = 0) -> Path:
    """An Idefics3, whose vision tower descends from SigLIP's."""
    import torch
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessorPil,
        Idefics3Processor,
        LlamaConfig,
    )

    words = tokenizer("<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(
        Idefics3Config(
            vision_config=VISION,
            text_config=LlamaConfig(vocab_size=len(words), **TEXT),
            image_token_id=words.convert_tokens_to_ids("<image>"),
            scale_factor=2,
            pad_token_id=0,
        )
    )
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(
            size={"longest_edge": EDGE},
            max_image_size={"longest_edge": EDGE},
            do_image_splitting=False,
        ),
        words,
        image_seq_len=1,
        chat_template=TEMPLATE,
    )
    return _save(model, processor, folder)


def tiny_qwen2_vl(folder: Path, seed: int = 0) -> Path:
    """A Qwen2-VL, which knows videos too; saved without the part for them."""
    import torch
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessorPil,
    )

    marks = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    words = tokenizer(*marks)
    start, end, image, video = words.convert_tokens_to_ids(list(marks))
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(
            text_config={
                **TEXT,
                "vocab_size": len(words),
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [1, 1, 2],
                },
            },
            vision_config={
                "depth": 2,
                "embed_dim": 32,
                "hidden_size": 32,
                "num_heads": 4,
                "patch_size": 8,
                "mlp_ratio": 2,
            },
            image_token_id=image,
            video_token_id=video,
            vision_start_token_id=start,
            vision_end_token_id=end,
        )
    )
    model.save_pretrained(folder)
    Qwen2VLImageProcessorPil(
        patch_size=8, size={"shortest_edge": EDGE * EDGE, "longest_edge": 4 * EDGE * EDGE}
    ).save_pretrained(folder)
    words.chat_template = TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    words.save_pretrained(folder)
    return folder


def tiny_paligemma(folder: Path, seed: int = 0) -> Path:
    """A PaliGemma of a SigLIP tower and a Gemma, which attends to the whole prompt both ways."""
    import torch
    from transformers import (
        GemmaConfig,
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessorPil,
    )

    edge = {"height": EDGE, "width": EDGE}
    processor = PaliGemmaProcessor(
        SiglipImageProcessorPil(size=edge, image_seq_length=4), tokenizer()
    )
    text = GemmaConfig(vocab_size=len(processor.tokenizer), head_dim=8, **TEXT)
    tower = {name: value for name, value in VISION.items() if name != "initializer_range"}
    torch.manual_seed(seed)
    model = PaliGemmaForConditionalGeneration(
        PaliGemmaConfig(
            vision_config={"model_type": "siglip_vision_model", "projection_dim": 32, **tower},
            text_config=text.to_dict(),
            image_token_id=processor.image_token_id,
            projection_dim=32,
        )
    )
    return _save(model, processor, folder)


def _save(model: Any, processor: Any, folder: Path) -> Path:
    # As a model of a hub has it: sampling settings that an audit must not follow.
    model.generation_config.do_sample = True
    model.generation_config.temperature = 0.7
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def pictures(count: int, edge: int = EDGE) -> list[Image.Image]:
    rng = np.random.default_rng(edge)
    return [
        Image.fromarray(rng.integers(256, size=(edge, edge, 3), dtype=np.uint8))
        for _ in range(count)
    ]
