"""Responses with a known truth, and a tiny random model with a dataset to audit it on."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cf_lab_assets.audits import association
from cf_lab_assets.audits.declaration import AuditConfig
from cf_lab_resources.bucket import Bucket
from cf_lab_resources.engine.questions import ASSOCIATION

DATASET_HASH = "d" * 64
OCCUPATIONS = ("doctor", "nurse", "pilot")
SMALL = AuditConfig(
    name="small",
    occupations=OCCUPATIONS,
    attributes={"gender": ("woman", "man"), "age": ("young", "middle-aged", "old")},
    primary=(
        {
            "name": "gender-woman-man",
            "attribute": "gender",
            "from_value": "woman",
            "to_value": "man",
            "prompts_plus": ("doctor", "pilot"),
            "prompts_minus": ("nurse",),
        },
    ),
    minimum_sets=10,
    bootstrap_draws=500,
    permutations=999,
)


def audit(config: AuditConfig, name: str = "model-a") -> dict[str, object]:
    return {
        "model": {
            "name": name,
            "model_type": "clip",
            "families": ["clip"],
            "architectures": ["CLIPModel"],
            "parameters": 1234,
            "dimension": 8,
            "dtype": "float32",
            "image_processor": {"image_processor_type": "CLIPImageProcessor", "size": 64},
            "tokenizer": "CLIPTokenizer",
            "sha256": "a" * 64,
            "files": {},
        },
        "dataset_hash": DATASET_HASH,
        "declaration": config.model_dump(mode="json"),
        "declaration_hash": config.hash,
        "prompts": {one: config.prompt(one) for one in config.occupations},
    }


def responses(
    members: dict[str, np.ndarray],
    sources: np.ndarray,
    config: AuditConfig = SMALL,
    name: str = "model-a",
) -> pa.Table:
    """Responses from scores.

    Args:
        members: by attribute, (sets, values, prompts); NaN leaves a member out. The placebo of
            set i shows value i modulo their number.
        sources: (sets, prompts); set i of every attribute is of source i.
        config: declares attributes and occupations.
        name: of the audited model.
    """
    rows = [
        (name, "source", f"s{i:05}", None, f"s{i:05}", None, None, False, None, prompt, scores[p])
        for i, scores in enumerate(sources)
        for p, prompt in enumerate(config.occupations)
    ]
    for attribute, block in members.items():
        values = config.attributes[attribute]
        for i, v, p in np.argwhere(np.isfinite(block)):
            set_id = f"s{i:05}-{attribute}"
            rows.append(
                (
                    name,
                    "member",
                    f"{set_id}-{values[v]}",
                    set_id,
                    f"s{i:05}",
                    attribute,
                    values[v],
                    bool(i % len(values) == v),
                    list((shown(i, config) | {attribute: values[v]}).items()),
                    config.occupations[p],
                    block[i, v, p],
                )
            )
    schema = association.responses_schema(audit(config, name))
    empty = (None,) * (len(schema) - len(rows[0]) - 1)
    rows = [(*row, ASSOCIATION, *empty) for row in rows]
    columns = [
        pa.array(column, field.type)
        for column, field in zip(zip(*rows, strict=True), schema, strict=True)
    ]
    return pa.table(columns, schema=schema)


def shown(source: int, config: AuditConfig) -> dict[str, str]:
    """What a source shows of each attribute, as its placebos do."""
    return {name: values[source % len(values)] for name, values in config.attributes.items()}


def noisy(
    sets: int, seed: int, shift: float = 0.0, config: AuditConfig = SMALL
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scores with a scene of their own per set, rendering noise, and men shifted by `shift`."""
    rng = np.random.default_rng(seed)
    prompts = len(config.occupations)
    scenes = rng.normal(0.2, 0.05, (sets, prompts))
    # Every other source shows a man, as the placebos of `responses` do.
    sources = scenes.copy()
    sources[1::2, 0] += shift
    members = {}
    for attribute, values in config.attributes.items():
        noise = rng.normal(0, 0.01, (sets, len(values), prompts))
        members[attribute] = (scenes if attribute == "gender" else sources)[:, None] + noise
    members["gender"][:, 1, 0] += shift
    return members, sources


def tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Save a random CLIP of 64 x 64 pixels with a tokenizer of single letters."""
    import string

    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    letters = string.ascii_lowercase + string.digits + "-'"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(one + "</w>" for one in letters)]
    tokenizer = CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=77
    )
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    torch.manual_seed(seed)
    model = CLIPModel(
        CLIPConfig(
            text_config={
                **sizes,
                "vocab_size": len(words),
                "max_position_embeddings": 77,
                "bos_token_id": 0,
                "eos_token_id": 1,
            },
            vision_config={**sizes, "image_size": 64, "patch_size": 16},
            projection_dim=8,
        )
    )
    model.save_pretrained(folder)
    edge = {"height": 64, "width": 64}
    CLIPImageProcessorPil(size=edge, crop_size=edge, do_center_crop=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def put_picture(bucket: Bucket, colour: tuple[int, int, int], corner: int) -> tuple[str, str]:
    """Store a small picture; its key and hash."""
    image = Image.new("RGB", (64, 64), colour)
    image.paste((255 - colour[0], 40, 90), (corner, corner, corner + 16, corner + 16))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    png = buffer.getvalue()
    return bucket.put_content("images", png, ".png"), hashlib.sha256(png).hexdigest()


def put_dataset(bucket: Bucket, sources: int) -> pa.Table:
    """Write a dataset of gender, age and skin-tone sets with its manifest; the pairs."""
    attributes = AuditConfig().attributes
    pairs, sets = [], []
    for i in range(sources):
        source_id = f"s{i:015}"
        source_key, source_sha = put_picture(bucket, (3 * i % 256, 7 * i % 256, 90), i % 48)
        for a, (attribute, values) in enumerate(attributes.items()):
            own = values[i % len(values)]
            set_id = f"{source_id}-{attribute}"
            for v, value in enumerate(values):
                colour = ((3 * i + 2) % 256, (7 * i + 50 * v) % 256, 90 + 40 * a)
                key, sha = put_picture(bucket, colour, i % 48)
                pairs.append(
                    {
                        "pair_id": f"{set_id}-{value}",
                        "set_id": set_id,
                        "source_id": source_id,
                        "batch": "b1",
                        "attribute": attribute,
                        "value": value,
                        "is_placebo": value == own,
                        "values": [(attribute, value)],
                        "image_key": key,
                        "image_sha256": sha,
                        "source_image_key": source_key,
                        "source_image_sha256": source_sha,
                    }
                )
            sets.append(
                {
                    "set_id": set_id,
                    "source_id": source_id,
                    "batch": "b1",
                    "attribute": attribute,
                    "from_value": own,
                    "member_values": list(values),
                }
            )
    models = {
        "editor": {"name": "an-editor", "sha256": "1" * 64, "family": "stable-diffusion"},
        "encoder": {"name": "a-siglip", "sha256": "2" * 64, "family": "siglip"},
    }
    manifest = {
        "content_hash": DATASET_HASH,
        "pairs": len(pairs),
        "sets": len(sets),
        "batches": {"b1": "3" * 64},
        "models": models,
    }
    kinds = {"is_placebo": pa.bool_(), "values": pa.map_(pa.string(), pa.string())}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in pairs[0]])
    table = pa.Table.from_pylist(pairs, schema=schema)
    bucket.put_bytes(f"datasets/{DATASET_HASH}/pairs.parquet", parquet(table))
    bucket.put_bytes(f"datasets/{DATASET_HASH}/sets.parquet", parquet(pa.Table.from_pylist(sets)))
    bucket.put_bytes(f"datasets/{DATASET_HASH}/manifest.json", json.dumps(manifest).encode())
    bucket.put_bytes("datasets/latest.json", json.dumps({"content_hash": DATASET_HASH}).encode())
    return table


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()
