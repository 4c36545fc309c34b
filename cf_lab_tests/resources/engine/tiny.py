"""Pipelines of the field's own classes, seeded and tiny, saved as anybody would save them."""

import json

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    T5Config,
    T5EncoderModel,
)

from cf_lab_assets.starter import text
from cf_lab_resources.engine.transformers import picture_processor

LATENT = 8
SIZE = 2 * LATENT
WIDTH = 16
SCHEDULERS = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "ancestral": EulerAncestralDiscreteScheduler,
}


def vae():
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIZE,
    ).eval()


def unet(channels, **more):
    torch.manual_seed(2)
    return UNet2DConditionModel(
        sample_size=LATENT,
        in_channels=channels,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=more.pop("width", WIDTH),
        attention_head_dim=4,
        norm_num_groups=8,
        **more,
    ).eval()


def encoder(tokenizer, kind=CLIPTextModel):
    torch.manual_seed(3)
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=text.MAX_TOKENS,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()


def scheduler(name):
    more = {"clip_sample": False} if name == "ddim" else {}
    return SCHEDULERS[name](
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, **more
    )


def stable_diffusion(kind, channels, solver):
    tokenizer = text.build_tokenizer()
    return kind(
        vae=vae(),
        text_encoder=encoder(tokenizer),
        tokenizer=tokenizer,
        unet=unet(channels),
        scheduler=scheduler(solver),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(kind, channels, solver):
    tokenizer = text.build_tokenizer()
    more = {
        "width": 2 * WIDTH,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
    }
    return kind(
        vae=vae(),
        text_encoder=encoder(tokenizer),
        text_encoder_2=encoder(tokenizer, CLIPTextModelWithProjection),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet(channels, **more),
        scheduler=scheduler(solver),
    )


def flux_kontext(kind, channels, solver):
    """Four layers of a rectified flow; its second text encoder is a T5."""
    tokenizer = text.build_tokenizer()
    torch.manual_seed(4)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=True,
    ).eval()
    torch.manual_seed(5)
    small = AutoencoderKL(
        block_out_channels=(4,),
        latent_channels=1,
        norm_num_groups=1,
        sample_size=SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0609,
        scaling_factor=1.5035,
    ).eval()
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=WIDTH, num_layers=1, num_heads=2
        )
    ).eval()
    return kind(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=small,
        text_encoder=encoder(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=t5,
        tokenizer_2=tokenizer,
        transformer=transformer,
    )


QWEN_TOKENS = (
    "<|im_start|> <|im_end|> <|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|>".split()
)


def qwen_tokenizer():
    """One token a byte, and those that the pipeline's template is made of."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"]
    return Qwen2Tokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[],
        additional_special_tokens=QWEN_TOKENS,
        model_max_length=4096,
    )


def qwen_encoder(tokenizer):
    """A language model of two layers that sees through one."""
    ids = dict(zip(QWEN_TOKENS, tokenizer.convert_tokens_to_ids(QWEN_TOKENS), strict=True))
    torch.manual_seed(6)
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "bos_token_id": tokenizer.eos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "hidden_size": WIDTH,
                "intermediate_size": 2 * WIDTH,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "rope_parameters": {
                    "rope_type": "default",
                    "mrope_section": [1, 1, 2],
                    "rope_theta": 1e6,
                },
            },
            vision_config={
                "depth": 1,
                "hidden_size": WIDTH,
                "intermediate_size": 2 * WIDTH,
                "num_heads": 2,
                "out_hidden_size": WIDTH,
                "fullatt_block_indexes": [0],
            },
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
        )
    ).eval()


def qwen(kind, channels, solver):
    """One double-stream block; its autoencoder halves three times, as the published one."""
    tokenizer = qwen_tokenizer()
    torch.manual_seed(7)
    small = AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 2],
        num_res_blocks=1,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()
    torch.manual_seed(8)
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 6, 6),
    ).eval()
    return kind(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=small,
        text_encoder=qwen_encoder(tokenizer),
        tokenizer=tokenizer,
        processor=picture_processor(Qwen2VLImageProcessorPil(), tokenizer),
        transformer=transformer,
    )


MAKERS = {
    "flux": (flux_kontext, FluxKontextPipeline, None),
    "qwen": (qwen, QwenImageEditPlusPipeline, None),
    "instruction": (stable_diffusion, StableDiffusionInstructPix2PixPipeline, 8),
    "instruction-xl": (sdxl, StableDiffusionXLInstructPix2PixPipeline, 8),
    "captions": (stable_diffusion, StableDiffusionPipeline, 4),
    "captions-xl": (sdxl, StableDiffusionXLPipeline, 4),
    "inpainting": (stable_diffusion, StableDiffusionInpaintPipeline, 9),
    "inpainting-xl": (sdxl, StableDiffusionXLInpaintPipeline, 9),
}


def saved(folder, name, solver="euler"):
    """The pipeline, and the folder that it was saved to."""
    maker, kind, channels = MAKERS[name]
    pipeline = maker(kind, channels, solver)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder, safe_serialization=True)
    if name == "qwen":  # published folders name the class that needs torchvision
        index = json.loads((folder / "model_index.json").read_text())
        index["processor"] = ["transformers", "Qwen2VLProcessor"]
        (folder / "model_index.json").write_text(json.dumps(index))
    return pipeline
