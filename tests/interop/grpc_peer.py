"""grpcio as a peer, without generated code: its methods take bytes and return bytes.

It serves on a free port. It also makes calls: it reads requests from stdin and writes responses to
stdout, one line of JSON each.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status


def left(_, context):
    """Returns the remaining time of the call, in seconds."""
    return json.dumps(context.time_remaining()).encode()


def fail(request, context):
    """Fails with the status in the request."""
    wanted = json.loads(request)
    details = [
        error_details_pb2.ErrorInfo(reason=wanted["reason"], domain=wanted["domain"], metadata=wanted["metadata"]),
        error_details_pb2.RetryInfo(retry_delay=Duration(nanos=wanted["retry_nanos"])),
    ]
    packed = [Any() for _ in details]
    for target, detail in zip(packed, details):
        target.Pack(detail)
    status = status_pb2.Status(code=wanted["code"], message=wanted["message"], details=packed)
    context.abort_with_status(rpc_status.to_status(status))


def metadata(_, context):
    """Returns the metadata of the call."""
    return json.dumps([[key, value] for key, value in context.invocation_metadata() if isinstance(value, str)]).encode()


def hang(_, context):
    """Returns when the process ends."""
    over.acquire()
    return b""


class Methods(grpc.GenericRpcHandler):
    def service(self, details):
        method = {"left": left, "fail": fail, "metadata": metadata, "hang": hang}.get(details.method.rpartition("/")[2])
        return method and grpc.unary_unary_rpc_method_handler(method)


def call(request):
    """Makes a call and returns its result."""
    with grpc.insecure_channel(request["to"]) as channel:
        method = channel.unary_unary(request["method"])
        try:
            response = method(request["message"].encode(), timeout=request.get("timeout"), metadata=request.get("metadata"))
            return {"code": "OK", "response": response.decode()}
        except grpc.RpcError as error:
            status = rpc_status.from_call(error)
            result = {"code": error.code().name, "message": error.details()}
            result["trailers"] = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
            for any in status.details if status else ():
                info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
                if any.Unpack(info):
                    result["info"] = {"reason": info.reason, "domain": info.domain, "metadata": dict(info.metadata)}
                if any.Unpack(retry):
                    result["retry_nanos"] = retry.retry_delay.ToNanoseconds()
            return result


over = Semaphore(0)
server = grpc.server(ThreadPoolExecutor(4), handlers=[Methods()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(json.dumps(f"grpcio {grpc.__version__}"), flush=True)
print(json.dumps(port), flush=True)
for line in sys.stdin:
    print(json.dumps(call(json.loads(line))), flush=True)
over.release(4)
server.stop(None).wait()
