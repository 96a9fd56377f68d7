"""What Triton's python backend runs: image files as BYTES, the likeliest class of each.

A bad image is its own request's error, and nobody else's.
"""

import os
import sys
from collections.abc import Iterator

# The stub's Python is isolated: it heeds no PYTHONPATH. The one on PATH, whose packages it finds, may be another.
sys.path = [*os.environ["PEER_PATH"].split(os.pathsep), *sys.path]

import numpy as np  # noqa: E402
import triton_python_backend_utils as triton  # noqa: E402

from benchmarks.peers.work import Best, work  # noqa: E402
from server.errors import ServeError  # noqa: E402


class TritonPythonModel:
    """Requests of one dynamic batch at a time."""

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002
        self.work = work()

    def execute(self, requests: list) -> list:
        """A response for each request, whose images (rows, 1) may be more than one."""
        read = [self._decoded(request) for request in requests]
        good = [images for images in read if not isinstance(images, triton.TritonError)]
        answers = iter(self.work.classify([image for images in good for image in images]) if good else [])
        return [self._response(images, answers) for images in read]

    def _decoded(self, request: "triton.InferenceRequest") -> "list | triton.TritonError":
        files = triton.get_input_tensor_by_name(request, "image").as_numpy()
        try:
            return [self.work.decode(file) for file in files.ravel()]
        except ServeError as error:
            return triton.TritonError(error.detail, triton.TritonError.INVALID_ARG)

    def _response(self, images: "list | triton.TritonError", answers: Iterator[Best]) -> "triton.InferenceResponse":
        if isinstance(images, triton.TritonError):
            return triton.InferenceResponse([], error=images)
        best = [next(answers) for _ in images]
        labels = np.array([[each.label.encode()] for each in best], object)
        probabilities = np.array([[each.probability] for each in best], np.float32)
        return triton.InferenceResponse([triton.Tensor("label", labels), triton.Tensor("probability", probabilities)])
