"""Weights by a formula, so that two networks with the same names hold the same values on every
machine.
"""

import torch


def filled(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of `state`; values so that no layer's output dies or
    explodes.
    """
    made = {}
    for number, (name, tensor) in enumerate(sorted(state.items())):
        wave = torch.sin(
            torch.arange(tensor.numel(), dtype=torch.float64) ** 2 * 0.7 + number
        ).reshape(tensor.shape)
        if not tensor.is_floating_point():
            made[name] = tensor
        elif name.endswith("running_var"):
            made[name] = (1 + wave / 2).float()
        elif tensor.dim() > 1:
            made[name] = (wave * 2 / tensor[0].numel() ** 0.5).float()
        elif name.endswith("weight"):
            made[name] = (0.6 + wave / 4).float()
        else:
            made[name] = (wave / 10).float()
    return made


def picture(height: int, width: int) -> torch.Tensor:
    """(1, 3, height, width) float32 of -1 to 1."""
    return (
        torch.sin(torch.arange(3 * height * width, dtype=torch.float64) ** 2 * 0.013)
        .reshape(1, 3, height, width)
        .float()
    )
