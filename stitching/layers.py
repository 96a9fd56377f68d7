"""The stitching layer: the learned map from one anchor's features to another's."""

from torch import Tensor, nn


class StitchingLayer(nn.Module):
    """A linear map with bias on every token, the class token included; no norm, no activation."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.transform = nn.Linear(width_in, width_out)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, tokens, width_in) -> (N, tokens, width_out)."""
        return self.transform(tokens)  # type: ignore[no-any-return]
