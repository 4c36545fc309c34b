"""The one loop that trains every starter model, and the device that it runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Called with (step, loss) after every step.
Report = Callable[[int, float], None]

WARM_UP = 0.1
GRADIENT_NORM = 1.0


def training_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_precision() -> torch.autocast:
    """Autocast to bfloat16 on the training device: half the time, and no loss scaling."""
    import torch

    return torch.autocast(training_device().type, torch.bfloat16)


def minimise(
    step_loss: Callable[[], torch.Tensor],
    weights: Iterable[torch.nn.Parameter],
    steps: int,
    report: Report,
    *,
    peak_rate: float,
    weight_decay: float,
    averaging: float,
    after_backward: Callable[[], None] | None = None,
) -> None:
    """Minimise a loss by AdamW on a one-cycle schedule.

    At the end the weights are their own exponential average.

    Args:
        step_loss: draws a batch and returns its mean loss, a float32 scalar.
        weights: what is trained, in place.
        steps: optimiser steps.
        report: called with (step, loss) after every step.
        peak_rate: highest learning rate.
        weight_decay: of AdamW.
        averaging: decay of the exponential average, by step.
        after_backward: may change gradients before they are used.
    """
    import torch
    from diffusers.training_utils import EMAModel

    trained = list(weights)
    optimiser = torch.optim.AdamW(
        trained, lr=peak_rate, weight_decay=weight_decay, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, peak_rate, total_steps=steps, pct_start=WARM_UP
    )
    average = EMAModel(trained, decay=averaging)
    for step in range(steps):
        value = step_loss()
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        if after_backward:
            after_backward()
        torch.nn.utils.clip_grad_norm_(trained, GRADIENT_NORM)
        optimiser.step()
        schedule.step()
        average.step(trained)
        report(step, value.item())
    average.copy_to(trained)
