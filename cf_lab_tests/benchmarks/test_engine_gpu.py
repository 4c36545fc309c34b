import pytest
import torch

from cf_lab_tests.benchmarks import engine_gpu

TINY = ["--device", "cpu", "--tiny", "--pictures", "4", "--batch", "4", "--steps", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("size", list(engine_gpu.SIZES))
def test_the_benchmark_for_gpus_runs_on_tiny_pipelines_without_one(size, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    engine_gpu.main([*TINY, "--rounds", "1", "--sizes", size])
    rows = {
        cells[0].strip(): [cell.strip() for cell in cells[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("│")
        for cells in [line[1:].split("│")]
    }
    assert list(rows) == [
        "stock, as documented",
        "stock, channels last",
        "engine, exact",
        *engine_gpu.shortcuts(engine_gpu.GUIDED),
    ]
    assert all(float(speed) > 0 for speed, *_ in rows.values())
    assert max(float(ratio) for name, (_, ratio, *_) in rows.items() if "stock" in name) == 1.0
    # In half precision roundings differ by a level or two; pictures from other noise by tens.
    assert float(rows["stock, channels last"][-1]) < 8
    assert float(rows["engine, exact"][-1]) < 8


def test_operations_and_predictions_are_counted():
    from diffusers import UNet2DConditionModel

    unet, *_ = engine_gpu.TINY["sd15"]
    model = UNet2DConditionModel(in_channels=8, out_channels=4, **unet)
    counted = engine_gpu.operations_of(model, "cpu")
    first = 2 * 8 * 16 * 3 * 3 * 8 * 8  # of the first convolution alone
    assert counted > 20 * first
    linear = sum(one.weight.numel() for one in model.modules() if hasattr(one, "in_features"))
    assert counted > 2 * linear
    exact = engine_gpu.GUIDED
    by_name = {
        name: engine_gpu.predictions(settings)
        for name, settings in engine_gpu.shortcuts(exact).items()
    }
    assert engine_gpu.predictions(exact) == 60
    assert list(by_name.values()) == [10 * 3 + 10, 8 * 3, 4 * 3 + 4]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_the_benchmark_says_so(capsys):
    with pytest.raises(SystemExit):
        engine_gpu.main([])
    assert "there is no CUDA device here" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        engine_gpu.main(["--device", "cpu"])
    assert "are for a GPU; give --tiny" in capsys.readouterr().err
