"""Ray Serve: one replica behind its gRPC proxy, asked over the Open Inference Protocol."""

from __future__ import annotations

import os
import signal
import threading

import ray
from ray import serve
from ray.serve.config import HTTPOptions, gRPCOptions

from bench.servers.programs.models import SHAPES, load, rows_of
from protos import inference_pb2 as pb

MODEL = os.environ["PEER_MODEL"]


class PeerDeployment:
    """One of the models, named by the environment."""

    def __init__(self) -> None:
        self._answer = load(MODEL)
        self._shape = SHAPES[MODEL]

    async def ModelInfer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """Answer one request; Ray calls the method that is named as the RPC."""
        rows = self._answer(rows_of(MODEL, request.raw_input_contents[0]))
        answer = pb.ModelInferResponse(model_name=MODEL, id=request.id)
        answer.outputs.add(name=self._shape.output, datatype="FP32", shape=rows.shape)
        answer.raw_output_contents.append(rows.tobytes())
        return answer


if __name__ == "__main__":
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        _temp_dir=os.environ["PEER_FOLDER"],
        object_store_memory=100 << 20,
    )
    serve.start(
        http_options=HTTPOptions(host="127.0.0.1", port=int(os.environ["PEER_HTTP_PORT"])),
        grpc_options=gRPCOptions(
            port=int(os.environ["PEER_PORT"]),
            grpc_servicer_functions=[
                "protos.inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"
            ],
        ),
    )
    deployment = serve.deployment(
        num_replicas=1,
        max_ongoing_requests=256,  # five by default
        logging_config={"enable_access_log": False},
    )(PeerDeployment)
    serve.run(deployment.bind(), name=MODEL, route_prefix="/")
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    stop.wait()
    serve.shutdown()
    ray.shutdown()
