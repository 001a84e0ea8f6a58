"""ArcFace's own checkpoints (Deng et al. 2019; insightface's arcface_torch) in torch, on the same
crops as in ONNX.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from stages.embed.arcface import SIDE, ArcFaceEmbed
from stages.embed.vector_rows import Store
from stages.networks.fold import fold
from stages.networks.iresnet import IResNet, shape_of
from stages.stage import Params, WeightFiles
from stages.torch_session import BadCheckpoint, load_state, ready
from stages.weights import Weights, WeightsName


class IResNetEmbedParams(Params):
    """Parameters of ArcFace in torch."""

    weights: Annotated[str, WeightsName("embed/iresnet")] = "arcface_r100_ms1mv3"
    """A name of `idcluster models list`, of the same kind."""
    batch: int = Field(4, ge=1, le=1024, description="faces that go through the network together")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the network; bfloat16 is for GPUs"
    )
    store: Store = Field(
        "float32", description="float16 rounds the stored vectors to half precision: smaller files"
    )
    threads: int = Field(1, ge=1)
    """Of the network, in each worker. More than one may change the last bits of its numbers."""


class IResNetEmbed(ArcFaceEmbed):
    """Rows of `embeddings` for faces with arcface5 landmarks. How deep the network is, its
    checkpoint tells.
    """

    backend: ClassVar[str] = "iresnet"
    code_version: ClassVar[int] = 1
    Parameters: ClassVar[type[Params]] = IResNetEmbedParams

    def setup(self, files: WeightFiles) -> None:
        """Raises MissingWeights, BadCheckpoint, NoDevice."""
        path = files.path(self.params.weights)
        state = load_state(path)
        try:
            network = IResNet(*shape_of(state))
        except ValueError as error:
            raise BadCheckpoint(f"{path}: {error}") from error
        ready(network, state, path, self.device, self.params.threads)
        self.install(network, files.entry(self.params.weights))

    def install(self, network: IResNet, weights: Weights) -> None:
        """Take a network in eval mode, in float32 and on the stage's device, trained as `weights`
        were.
        """
        self._width = network.fc.out_features
        self._dtype = getattr(torch, self.params.precision)
        fold(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = network.lowered(self._dtype)
        self._mean, self._std = weights.normalisation

    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Raw vectors (n, d) float32 of aligned crops, each (112, 112, 3) uint8 RGB."""
        return np.asarray(self.launch(crops).cpu().numpy())

    @torch.inference_mode()
    def launch(self, crops: Sequence[np.ndarray]) -> torch.Tensor:
        """The same on the stage's device; a GPU is not waited for."""
        cuda = self.device == "cuda"
        out = [torch.zeros((0, self._width), device=self.device)]
        for start in range(0, len(crops), self.params.batch):
            part = crops[start : start + self.params.batch]
            # Always a whole batch: the last bits of a network depend on its size.
            pixels = torch.zeros(
                (self.params.batch, SIDE, SIDE, 3), dtype=torch.uint8, pin_memory=cuda
            )
            np.stack(part, out=pixels.numpy()[: len(part)])
            shown = (pixels.to(self.device, non_blocking=True).float() - self._mean) / self._std
            out.append(self._network(shown.to(self._dtype).permute(0, 3, 1, 2))[: len(part)])
        return torch.cat(out)
