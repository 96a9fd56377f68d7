"""LitServe, written as its documentation does it: by_litserve.py --port 8000

An image is the file `image` of a form (request["image"].file), decoded in the worker; a bad one is an HTTPException of
decode_request. Batches of up to PEER_ROWS after 10 ms. One worker, one API server and 30 s of timeout are the defaults.
"""

import argparse

import litserve
from fastapi import HTTPException

from benchmarks.peers.work import DEVICE, ROWS, Best, work
from server.errors import ServeError


class Classifier(litserve.LitAPI):
    """The four methods that LitServe calls in its worker."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        self.work = work()

    def decode_request(self, request):
        """A form -> an image. Without an annotation, of which LitServe would make the type of a body."""
        try:
            return self.work.decode(request["image"].file.read())
        except ServeError as error:
            raise HTTPException(error.status, error.detail) from error
        except (KeyError, AttributeError) as error:
            raise HTTPException(400, "the form has no file `image`") from error

    def batch(self, inputs: list) -> list:
        return list(inputs)

    def predict(self, images: list) -> list[Best]:
        return self.work.classify(images)

    def unbatch(self, output: list[Best]) -> list[Best]:
        return output

    def encode_response(self, output: Best) -> dict[str, object]:
        return output._asdict()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    api = Classifier(max_batch_size=ROWS, batch_timeout=0.01)
    server = litserve.LitServer(api, accelerator=DEVICE)
    server.run(host="127.0.0.1", port=parser.parse_args().port, generate_client_file=False)
