import pytest

from cf_lab_assets.models.variants import Quality, convert_to_bfloat16, losses
from cf_lab_resources.engine.folders import check_folder, folder_files


def test_weights_are_rounded_and_all_else_stays(tiny, tmp_path):
    import torch
    from safetensors.torch import load_file

    convert_to_bfloat16(tiny, tmp_path / "half")
    check_folder(tmp_path / "half")
    before, after = folder_files(tiny), folder_files(tmp_path / "half")
    assert {path for path in before if before[path] != after[path]} == {"model.safetensors"}
    sizes = [(one / "model.safetensors").stat().st_size for one in (tiny, tmp_path / "half")]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.05)
    weights = load_file(tmp_path / "half" / "model.safetensors")["weight"]
    original = load_file(tiny / "model.safetensors")["weight"]
    assert weights.dtype is torch.bfloat16
    assert torch.equal(weights, original.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("cits", "success", "lost"),
    [
        (0.80, 0.90, []),
        (0.95, 1.00, []),
        (0.7921, 0.8901, []),
        (0.7919, 0.90, ["cits"]),
        (0.80, 0.88, ["success"]),
        (float("nan"), 0.0, ["cits", "success"]),
    ],
)
def test_a_variant_may_lose_one_per_cent_and_no_more(cits, success, lost):
    found = losses(Quality(100, 0.80, 0.90), Quality(100, cits, success))
    assert len(found) == len(lost)
    assert all(word in line for word, line in zip(lost, found, strict=True))
