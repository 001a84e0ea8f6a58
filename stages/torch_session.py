"""torch the same way everywhere: on the stage's device, in full float32, with a fixed number of
threads.
"""

from typing import Any

import torch

from schemas.errors import UserError
from stages.stage import Device, NoDevice
from stages.torchscript import is_torchscript, tensors


class BadCheckpoint(UserError, ValueError):
    """A checkpoint whose keys or shapes are not those of the network; the message names the first
    ones.
    """


def load_state(
    path: str, nested: tuple[str, ...] = ("state_dict",), prefix: str = "module."
) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name, on the CPU. Nothing but tensors and plain containers is
    unpickled.

    Takes safetensors, what torch.save wrote, and TorchScript archives (of those the tensors, none
    of the code).

    `nested`: keys under which a checkpoint may keep its tensors. `prefix`: what DataParallel puts
    before each name. Raises BadCheckpoint.
    """
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        found: Any = load_file(path)
    else:
        try:
            found = (
                tensors(path)
                if is_torchscript(path)
                else torch.load(path, map_location="cpu", weights_only=True)
            )
        except Exception as error:  # torch raises whatever its reader met
            raise BadCheckpoint(
                f"{path}: not a checkpoint that can be read without running code from it: {error}"
            ) from error
    for key in nested:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if (
        not isinstance(found, dict)
        or not found
        or not all(isinstance(value, torch.Tensor) for value in found.values())
    ):
        raise BadCheckpoint(f"{path}: not a dictionary of tensors")
    return {name.removeprefix(prefix): value for name, value in found.items()}


def ready(
    network: torch.nn.Module,
    state: dict[str, torch.Tensor],
    path: str,
    device: Device,
    threads: int = 1,
) -> torch.nn.Module:
    """The network with the checkpoint's values, for inference on `device`. Every key has to fit.
    Raises BadCheckpoint, NoDevice.

    TF32 is switched off for the process: it rounds to 10 bits of mantissa, and numbers would differ
    from the CPU's.
    """
    wanted = network.state_dict()
    lacking, foreign = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    lacking = [
        name for name in lacking if not name.endswith("num_batches_tracked")
    ]  # counts of training; old files have none
    shaped = [
        name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape
    ]
    if lacking or foreign or shaped:
        told = [
            ("lacks", lacking),
            ("has unknown", foreign),
            ("has another shape for", sorted(shaped)),
        ]
        raise BadCheckpoint(
            f"{path}: "
            + "; ".join(
                f"{what} {', '.join(names[:3])} ({len(names)})" for what, names in told if names
            )
        )
    network.load_state_dict(state, strict=False)
    if device == "cuda" and not torch.cuda.is_available():
        raise NoDevice(
            "the DAG gives this stage a GPU, but torch sees none: install a build of torch for "
            "CUDA, or set gpus: 0"
        )
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return network.eval().requires_grad_(False).to(device)
