import functools
import importlib.util
import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cf_lab_resources.engine.batching import Batches, OutOfMemory
from cf_lab_resources.engine.editors import (
    Drawing,
    DrawingRefused,
    EditorSettings,
    Member,
    load_editor,
    noise_seed,
)
from cf_lab_resources.engine.folders import ModelRefused
from cf_lab_resources.engine.latent import LatentEditor
from cf_lab_resources.engine.licences import LicenceRefused
from cf_lab_resources.engine.pipeline import Slot
from cf_lab_tests.resources.engine import tiny

WORDS = ("a young woman", "an old man", "a man with dark skin", "a woman")
MEMBERS = tuple(Member(words, f"turn the person into {words}") for words in WORDS)
STEPS = 4


def picture(seed, size=tiny.SIZE):
    levels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def levels(pictures):
    return np.stack([np.asarray(one, dtype=np.int16) for one in pictures])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Saves each pipeline once."""

    @functools.cache
    def saved(name, solver="euler"):
        place = tmp_path_factory.mktemp("pipelines") / f"{name}-{solver}"
        return place, tiny.saved(place, name, solver)

    return saved


def generators(drawing):
    return [torch.Generator().manual_seed(drawing.seed) for _ in drawing.members]


@pytest.mark.parametrize("name", ["instruction", "instruction-xl"])
@pytest.mark.parametrize("solver", ["ddim", "ancestral"])
@pytest.mark.parametrize("guidance", [(1.0, 1.0), (7.5, 1.0), (7.5, 1.5)])
def test_instruction_editing_is_that_of_the_stock_pipeline(folder, name, solver, guidance):
    place, pipeline = folder(name, solver)
    settings = EditorSettings(STEPS, *guidance, batch_size=4)
    drawing = Drawing("s1", 0, MEMBERS, picture(1))
    (drawn,) = load_editor(place, settings, "cpu").draw([drawing])
    stock = pipeline(
        prompt=[member.instruction for member in MEMBERS],
        image=[picture(1)] * len(MEMBERS),
        generator=generators(drawing),
        num_inference_steps=STEPS,
        guidance_scale=guidance[0],
        image_guidance_scale=guidance[1],
    ).images
    assert np.abs(levels(drawn) - levels(stock)).max() <= 1
    assert np.abs(levels(drawn)[0] - levels(drawn)[1]).max() > 0


FLUX = "flux-1-dev-non-commercial-license"


def test_flux_kontext_edits_as_its_own_pipeline_does(folder):
    place, pipeline = folder("flux")
    settings = EditorSettings(2, 2.5, batch_size=4, size=tiny.SIZE, accepted_licence=FLUX)
    drawing = Drawing("s1", 0, MEMBERS, picture(1))
    (drawn,) = load_editor(place, settings, "cpu").draw([drawing])
    stock = pipeline(
        image=[picture(1)] * len(MEMBERS),
        prompt=[member.instruction for member in MEMBERS],
        generator=generators(drawing),
        guidance_scale=2.5,
        num_inference_steps=2,
        height=tiny.SIZE,
        width=tiny.SIZE,
        max_area=tiny.SIZE**2,
        _auto_resize=False,
    ).images
    assert np.abs(levels(drawn) - levels(stock)).max() <= 1


def test_flux_kontext_without_a_card_is_taken_for_what_its_weights_came_under(folder):
    with pytest.raises(LicenceRefused, match=FLUX):
        load_editor(folder("flux")[0], EditorSettings(), "cpu")


@pytest.fixture
def small_references(monkeypatch):
    """Sources are read at 32 x 32 pixels instead of the million that the pipeline wants."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as module

    monkeypatch.setattr(module, "VAE_IMAGE_SIZE", 32**2)
    monkeypatch.setattr(module, "CONDITION_IMAGE_SIZE", 32**2)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_qwen_edits_as_its_own_pipeline_does(folder, small_references, guidance):
    place, pipeline = folder("qwen")
    settings = EditorSettings(2, guidance, size=32)
    drawing = Drawing("s1", 0, MEMBERS[:2], picture(1, 32))
    (drawn,) = load_editor(place, settings, "cpu").draw([drawing])
    stock = [
        pipeline(
            image=picture(1, 32),
            prompt=member.instruction,
            negative_prompt=" " if guidance > 1 else None,
            true_cfg_scale=guidance,
            generator=torch.Generator().manual_seed(drawing.seed),
            num_inference_steps=2,
            height=32,
            width=32,
        ).images[0]
        for member in drawing.members
    ]
    assert (levels(drawn) == levels(stock)).all()
    assert (levels(drawn)[0] != levels(drawn)[1]).any()


def test_qwen_draws_each_member_once_and_the_same_in_any_company(folder, small_references):
    place, _ = folder("qwen")
    editor = load_editor(place, EditorSettings(2, size=32, batch_size=8), "cpu")
    assert editor.describe()["batch_size"] == 1
    calls = []
    editor._pipeline.transformer.register_forward_hook(lambda *_: calls.append(1))
    many = [Drawing(f"s{n}", n, MEMBERS[:2], picture(n, 32)) for n in range(2)]
    whole = editor.draw(many)
    assert len(calls) == 2 * 2 * 2, "steps, sets and members"
    for one, drawn in zip(many, whole, strict=True):
        assert (levels(editor.draw([one])[0]) == levels(drawn)).all()
    with pytest.raises(DrawingRefused, match="s9 has no source picture"):
        editor.draw([Drawing("s9", 0, MEMBERS)])


@pytest.mark.parametrize("name", ["qwen", "flux"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "ddim"}, "follow the setting solver; leave it at 'own'"),
        ({"guidance_end": 0.5}, "follow the setting guidance_end; leave it at 1.0"),
        ({"compiled": True}, "follow the setting compiled; leave it at False"),
        ({"size": 33}, "size 33 is no multiple of"),
    ],
)
def test_a_setting_that_a_pipelines_own_call_would_ignore_is_refused(
    folder, name, settings, message
):
    with pytest.raises(ModelRefused, match=message):
        load_editor(folder(name)[0], EditorSettings(accepted_licence=FLUX, **settings), "cpu")


def test_a_folder_without_qwens_processor_is_refused(folder, tmp_path):
    copy = changed(folder("qwen")[0], tmp_path)
    for path in (copy / "processor").iterdir():
        path.unlink()
    with pytest.raises(ModelRefused, match="can't be loaded as a QwenImageEditPlusPipeline"):
        load_editor(copy, EditorSettings(), "cpu")


def test_pictures_may_have_another_size_than_the_pipelines_own(folder):
    place, _ = folder("instruction")
    editor = load_editor(place, EditorSettings(2, size=24), "cpu")
    (drawn,) = editor.draw([Drawing("s1", 0, MEMBERS[:1], picture(1))])
    assert drawn[0].size == (24, 24)
    with pytest.raises(ModelRefused, match="size 25 is no multiple"):
        load_editor(place, EditorSettings(2, size=25), "cpu")


@pytest.mark.parametrize("name", ["captions", "captions-xl"])
@pytest.mark.parametrize("solver", ["ddim", "ancestral"])
def test_without_sharing_captions_are_drawn_as_by_the_stock_pipeline(folder, name, solver):
    place, pipeline = folder(name, solver)
    settings = EditorSettings(STEPS, 7.5, batch_size=4, share_from=0.0, share_to=0.0)
    drawing = Drawing("s1", 0, MEMBERS)
    (drawn,) = load_editor(place, settings, "cpu").draw([drawing])
    stock = pipeline(
        prompt=[member.caption for member in MEMBERS],
        generator=generators(drawing),
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        height=tiny.SIZE,
        width=tiny.SIZE,
    ).images
    assert np.abs(levels(drawn) - levels(stock)).max() <= 1


class MapsOfFirst:
    """The procedure as published: attention maps are held, and the first member's copied."""

    def __init__(self, members):
        self.members = members

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *_, **__):
        query, key, value = (
            attn.head_to_batch_dim(linear(hidden_states))
            for linear in (attn.to_q, attn.to_k, attn.to_v)
        )
        maps = attn.get_attention_scores(query, key)
        sets = maps.view(-1, self.members, attn.heads, *maps.shape[1:])
        maps = sets[:, :1].expand_as(sets).reshape(maps.shape)
        return attn.to_out[0](attn.batch_to_head_dim(maps @ value))


@pytest.mark.parametrize("name", ["captions", "captions-xl"])
def test_shared_attention_is_the_first_members_map_given_to_all(folder, name):
    place, pipeline = folder(name)
    settings = EditorSettings(STEPS, 7.5, batch_size=4, share_from=1.0, share_to=1.0)
    drawing = Drawing("s1", 0, MEMBERS)
    (drawn,) = load_editor(place, settings, "cpu").draw([drawing])
    own = pipeline.unet.attn_processors
    pipeline.unet.set_attn_processor(
        {k: MapsOfFirst(len(MEMBERS)) if ".attn1." in k else v for k, v in own.items()}
    )
    stock = pipeline(
        prompt=[member.caption for member in MEMBERS],
        generator=generators(drawing),
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        height=tiny.SIZE,
        width=tiny.SIZE,
    ).images
    pipeline.unet.set_attn_processor(own)
    assert np.abs(levels(drawn) - levels(stock)).max() <= 1


def test_each_set_of_a_batch_shares_for_its_own_share_of_the_steps(folder):
    place, _ = folder("captions")
    settings = EditorSettings(STEPS, 3.0, batch_size=8, guidance_spread=7.5)
    drawings = [Drawing(f"s{n}", n, MEMBERS[:2]) for n in range(4)]
    editor = load_editor(place, settings, "cpu")
    together = editor.draw(drawings)
    for drawing, drawn in zip(drawings, together, strict=True):
        (alone,) = editor.draw([drawing])
        assert np.abs(levels(alone) - levels(drawn)).max() <= 1
    shares = {editor._share(drawing) for drawing in drawings}
    assert len(shares) == 4
    assert all(settings.share_from <= share <= settings.share_to for share in shares)
    assert len({editor._guidance(drawing) for drawing in drawings}) == 4


def test_a_set_that_goes_over_several_batches_shares_in_all_of_them(folder):
    place, _ = folder("captions")
    sharing = {"share_from": 1.0, "share_to": 1.0}
    drawings = [Drawing(f"s{n}", n, MEMBERS[: 1 + n]) for n in range(4)]
    whole = load_editor(place, EditorSettings(STEPS, 3.0, batch_size=16, **sharing), "cpu")
    parts = load_editor(place, EditorSettings(STEPS, 3.0, batch_size=3, **sharing), "cpu")
    for first, second in zip(whole.draw(drawings), parts.draw(drawings), strict=True):
        assert np.abs(levels(first) - levels(second)).max() <= 1
    pair = Drawing("s3", 3, (MEMBERS[0], MEMBERS[3]))
    one = load_editor(place, EditorSettings(STEPS, 3.0, batch_size=1, **sharing), "cpu")
    for editor in (whole, parts, one):
        drawn = levels(editor.draw([drawings[3]])[0])
        assert np.abs(drawn[[0, 3]] - levels(editor.draw([pair])[0])).max() <= 1
        assert np.abs(drawn[3] - drawn[0]).max() > 0


@pytest.mark.parametrize("name", ["inpainting", "inpainting-xl"])
def test_inpainting_changes_nothing_outside_of_its_mask(folder, name):
    place, _ = folder(name)
    mask = np.zeros((tiny.SIZE, tiny.SIZE), dtype=np.uint8)
    mask[4:12, 2:9] = 255
    source = picture(3)
    editor = load_editor(place, EditorSettings(STEPS, 7.5), "cpu")
    (drawn,) = editor.draw([Drawing("s1", 0, MEMBERS, source, Image.fromarray(mask))])
    for one in levels(drawn):
        same = (one == levels([source])[0]).all(axis=-1)
        assert same[mask == 0].all()
        assert not same[mask == 255].all()
    assert np.abs(levels(drawn)[0] - levels(drawn)[1]).max() > 0


def test_inpainting_is_that_of_the_stock_pipeline(folder):
    place, pipeline = folder("inpainting")
    mask = np.full((tiny.SIZE, tiny.SIZE), 255, dtype=np.uint8)
    mask[:8] = 0
    drawing = Drawing("s1", 0, MEMBERS, picture(3), Image.fromarray(mask))
    editor = load_editor(place, EditorSettings(STEPS, 7.5), "cpu")
    (drawn,) = editor.draw([drawing])
    masked = Image.composite(
        Image.new("RGB", (tiny.SIZE,) * 2, (127,) * 3), picture(3), Image.fromarray(mask)
    )
    known = editor._encode_picture(masked) * pipeline.vae.config.scaling_factor
    stock = pipeline(
        prompt=[member.caption for member in MEMBERS],
        image=[picture(3)] * len(MEMBERS),
        mask_image=Image.fromarray(mask),
        masked_image_latents=known[None].repeat(len(MEMBERS), 1, 1, 1),
        generator=generators(drawing),
        num_inference_steps=STEPS,
        guidance_scale=7.5,
        height=tiny.SIZE,
        width=tiny.SIZE,
        strength=1.0,
    ).images
    inside = np.asarray(mask) == 255
    assert np.abs(levels(drawn) - levels(stock))[:, inside].max() <= 1


@pytest.mark.parametrize("name", ["instruction", "captions", "inpainting"])
def test_a_member_is_the_same_in_whatever_batch_it_is_drawn(folder, name):
    place, _ = folder(name)
    mask = Image.new("L", (tiny.SIZE,) * 2, 255)
    editor = load_editor(place, EditorSettings(STEPS, 3.0, batch_size=4), "cpu")
    many = [Drawing(f"s{n}", n % 2, MEMBERS[:2], picture(n), mask) for n in range(5)]
    whole = editor.draw(many)
    backwards = editor.draw(many[::-1])[::-1]
    alone = [editor.draw([one])[0] for one in many]
    for first, second, third in zip(whole, backwards, alone, strict=True):
        assert (levels(first) == levels(second)).all()
        assert (levels(first) == levels(third)).all()
    again = load_editor(place, EditorSettings(STEPS, 3.0, batch_size=4), "cpu").draw(many)
    assert all((levels(a) == levels(b)).all() for a, b in zip(whole, again, strict=True))


@pytest.mark.parametrize("change", [{"channels_last": False}, {"batch_size": 3}])
def test_layout_and_batch_size_change_a_picture_by_one_level_at_most(folder, change):
    place, _ = folder("instruction")
    drawing = Drawing("s1", 0, MEMBERS, picture(1))
    settings = EditorSettings(STEPS, 7.5, 1.5, batch_size=4)
    (first,) = load_editor(place, settings, "cpu").draw([drawing])
    (second,) = load_editor(place, replace(settings, **change), "cpu").draw([drawing])
    assert np.abs(levels(first) - levels(second)).max() <= 1


def test_guidance_in_an_interval_is_guidance_in_all_steps_where_it_covers_them(folder):
    place, _ = folder("instruction")
    drawing = Drawing("s1", 0, MEMBERS, picture(1))

    def drawn(**settings):
        editor = load_editor(place, EditorSettings(STEPS, 7.5, 1.5, **settings), "cpu")
        return levels(editor.draw([drawing])[0])

    whole = drawn()
    assert (whole == drawn(guidance_start=0.0, guidance_end=1.0)).all()
    assert np.abs(whole - drawn(guidance_start=0.5)).max() > 0
    assert (drawn(guidance_end=0.0) == drawn(guidance_start=1.0)).all()


@pytest.mark.parametrize("solver", ["ddim", "dpm++", "euler", "unipc"])
def test_another_solver_reads_the_pipelines_own_configuration(folder, solver):
    place, _ = folder("instruction")
    editor = load_editor(place, EditorSettings(8, solver=solver), "cpu")
    (drawn,) = editor.draw([Drawing("s1", 0, MEMBERS[:1], picture(1))])
    assert editor.describe()["solver"] != "EulerDiscreteScheduler" or solver == "euler"
    assert drawn[0].size == (tiny.SIZE, tiny.SIZE)


@pytest.mark.parametrize("name", ["instruction", "instruction-xl", "captions", "inpainting"])
@pytest.mark.parametrize("solver", ["own", "ddim", "dpm++", "euler", "unipc"])
def test_until_it_is_decoded_no_step_waits_for_the_device(folder, name, solver):
    """On torch's meta device tensors have no values: to ask for one is an error, not a wait."""
    settings = EditorSettings(STEPS, 3.0, 1.5, guidance_end=0.5, solver=solver)
    editor = load_editor(folder(name, "ancestral")[0], settings, "cpu")
    editor._pipeline.to("meta")
    editor.device = "meta"
    mask = Image.new("L", (tiny.SIZE,) * 2, 255)
    drawing = Drawing("s1", 0, MEMBERS[:2], picture(1), mask)
    with torch.inference_mode():
        latents = editor._denoised([Slot(drawing, number) for number in range(2)])
    assert latents.device.type == "meta"
    assert latents.shape == (2, 4, tiny.LATENT, tiny.LATENT)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles by g++, which is not here")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_compiled_unet_draws_the_same_and_is_compiled_once_a_shape(folder):
    from torch._dynamo.utils import counters

    place, _ = folder("instruction")
    settings = EditorSettings(STEPS, 3.0, 1.5, guidance_end=0.5, batch_size=2)
    drawings = [Drawing(f"s{n}", n, MEMBERS[:2], picture(n)) for n in range(3)]
    plain = load_editor(place, settings, "cpu").draw(drawings)
    torch._dynamo.reset()
    counters.clear()
    editor = load_editor(place, replace(settings, compiled=True), "cpu")
    drawn = editor.draw(drawings[:1])
    assert counters["stats"]["unique_graphs"] == 2, "of guided and of other steps"
    drawn += editor.draw(drawings[1:])
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]
    for one, other in zip(drawn, plain, strict=True):
        assert np.abs(levels(one) - levels(other)).max() <= 1


def test_without_a_compiler_nothing_is_compiled(folder, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ModelRefused, match=r"there is no no-such-compiler; install one"):
        load_editor(folder("instruction")[0], EditorSettings(compiled=True), "cpu")


# Of a pixel's 256; 1 was measured for each of these pipelines, whose weights are random.
INT8_LEVELS = 2


@pytest.mark.int8
@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs the extra int8")
@pytest.mark.parametrize("name", ["instruction", "captions-xl", "flux", "qwen"])
def test_int8_keeps_linear_layers_as_bytes_and_draws_nearly_the_same(
    folder, small_references, name
):
    place, _ = folder(name)
    settings = EditorSettings(STEPS, batch_size=2, size=32, accepted_licence=FLUX)
    drawing = Drawing("s1", 0, MEMBERS[:2], picture(1, 32))
    (plain,) = load_editor(place, settings, "cpu").draw([drawing])
    editor = load_editor(place, replace(settings, int8=True), "cpu")
    model = getattr(editor._pipeline, "unet", None) or editor._pipeline.transformer
    linear = [part for part in model.modules() if isinstance(part, torch.nn.Linear)]
    assert linear
    assert {part.weight.qdata.dtype for part in linear} == {torch.int8}
    (drawn,) = editor.draw([drawing])
    assert 0 < np.abs(levels(drawn) - levels(plain)).max() <= INT8_LEVELS


@pytest.mark.parametrize("name", ["instruction", "flux"])
def test_int8_without_torchao_is_refused(folder, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ModelRefused, match="int8 needs the package torchao; install the lab with"):
        load_editor(folder(name)[0], EditorSettings(int8=True, accepted_licence=FLUX), "cpu")


def test_a_source_is_encoded_once_and_texts_are_remembered(folder, monkeypatch):
    place, _ = folder("instruction")
    editor = load_editor(place, EditorSettings(2, batch_size=2), "cpu")
    calls = {"picture": 0, "text": 0}

    def counting(name, method):
        def counted(self, *given):
            calls[name] += 1
            return method(self, *given)

        return counted

    for name, method in (("picture", "_encode_picture"), ("text", "_encode_texts")):
        counted = counting(name, getattr(LatentEditor, method))
        monkeypatch.setattr(LatentEditor, method, counted)
    editor.draw([Drawing("s1", draw, MEMBERS, picture(1)) for draw in range(3)])
    assert calls["picture"] == 1
    assert calls["text"] <= 3


def test_what_is_described_says_how_a_picture_came_about(folder):
    place, _ = folder("captions-xl", "ddim")
    described = load_editor(place, EditorSettings(), "cpu").describe()
    assert described["pipeline"] == "StableDiffusionXLPipeline"
    assert described["strategy"] == "captions"
    assert described["solver"] == "DDIMScheduler"
    assert described["precision"] == "float32"
    assert described["device"].startswith("cpu ")
    assert json.loads(json.dumps(described)) == described


def test_only_sets_from_captions_have_to_be_drawn_whole(folder):
    whole = {
        name: load_editor(folder(name)[0], EditorSettings(), "cpu").draws_whole_sets
        for name in ("instruction", "captions", "inpainting")
    }
    assert whole == {"instruction": False, "captions": True, "inpainting": False}


@pytest.mark.parametrize(
    ("name", "drawing", "message"),
    [
        ("instruction", Drawing("s1", 0, MEMBERS), "s1 has no source picture"),
        ("inpainting", Drawing("s1", 0, MEMBERS, picture(1)), "a mask of it"),
        (
            "inpainting",
            Drawing("s1", 0, MEMBERS, picture(1), Image.new("L", (3, 3))),
            r"mask is \(3, 3\)",
        ),
        ("captions", Drawing("s1", 0, ()), "s1 has no member"),
    ],
)
def test_a_drawing_that_lacks_something_is_refused_by_name(folder, name, drawing, message):
    editor = load_editor(folder(name)[0], EditorSettings(), "cpu")
    with pytest.raises(DrawingRefused, match=message):
        editor.draw([drawing])


def changed(place, tmp_path, **entries):
    """A copy of a pipeline folder whose index says something else."""
    copy = tmp_path / "copy"
    shutil.copytree(place, copy)
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, **entries}))
    return copy


def test_a_folder_that_no_strategy_serves_is_refused_with_those_that_are(folder, tmp_path):
    copy = changed(folder("captions")[0], tmp_path, _class_name="KandinskyPipeline")
    with pytest.raises(ModelRefused, match=r"KandinskyPipeline.*StableDiffusionXLPipeline"):
        load_editor(copy, EditorSettings(), "cpu")


def test_code_in_a_pipeline_folder_is_never_run(folder, tmp_path):
    copy = changed(folder("captions")[0], tmp_path, _class_name=["pipeline", "Mine"])
    (copy / "pipeline.py").write_text("raise SystemExit('run')")
    with pytest.raises(ModelRefused, match="never run"):
        load_editor(copy, EditorSettings(), "cpu")


def test_a_unet_of_another_strategy_is_refused_with_its_channels(folder, tmp_path):
    kind = "StableDiffusionInstructPix2PixPipeline"
    copy = changed(folder("captions")[0], tmp_path, _class_name=kind)
    with pytest.raises(ModelRefused, match=r"takes 4 channels.*takes 8"):
        load_editor(copy, EditorSettings(), "cpu")


def test_a_truncated_weights_file_is_a_clear_error(folder, tmp_path):
    copy = changed(folder("captions")[0], tmp_path)
    (weights,) = (copy / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelRefused, match=r"safetensors is truncated"):
        load_editor(copy, EditorSettings(), "cpu")


def test_a_non_commercial_licence_must_be_accepted_by_its_name(folder, tmp_path):
    copy = changed(folder("captions")[0], tmp_path)
    card = "---\nlicense: other\nlicense_name: acme-1-non-commercial-license\n---\nHello."
    (copy / "README.md").write_text(card)
    with pytest.raises(LicenceRefused, match="accepted_licence to 'acme-1-non-commercial-lic"):
        load_editor(copy, EditorSettings(), "cpu")
    with pytest.raises(LicenceRefused):
        load_editor(copy, EditorSettings(accepted_licence="mit"), "cpu")
    accepted = EditorSettings(accepted_licence="acme-1-non-commercial-license")
    assert load_editor(copy, accepted, "cpu").size == tiny.SIZE


def test_the_noise_is_of_set_and_draw_alone():
    seeds = {noise_seed(one, draw) for one in ("a", "b") for draw in (0, 1)}
    assert len(seeds) == 4
    assert noise_seed("a", 0) == Drawing("a", 0, ()).seed
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_batch_that_does_not_fit_is_halved_and_the_size_remembered():
    batches, sizes = Batches(8), []

    def work(items):
        sizes.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("no room")
        return [item * 10 for item in items]

    assert batches.run(list(range(5)), work) == [0, 10, 20, 30, 40]
    assert sizes == [8, 4, 2, 2, 2], "the last one is filled up"
    assert batches.run([7], work) == [70]
    assert sizes[5:] == [2]


def test_where_not_even_one_fits_the_error_says_what_to_do():
    def work(items):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")

    with pytest.raises(OutOfMemory, match="smaller editor"):
        Batches(4).run([1, 2], work)


def test_other_errors_are_no_lack_of_memory():
    def work(items):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Batches(4).run([1, 2], work)
