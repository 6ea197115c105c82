"""grpcio as a peer: methods that take bytes and give bytes, no generated code.

It serves on a port of its own, and calls on demand: one question a line on stdin, one answer a line on stdout, both JSON.
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
    """How much time the caller has given, in seconds."""
    return json.dumps(context.time_remaining()).encode()


def fail(request, context):
    """Fails as it is told to."""
    told = json.loads(request)
    details = [
        error_details_pb2.ErrorInfo(reason=told["reason"], domain=told["domain"], metadata=told["metadata"]),
        error_details_pb2.RetryInfo(retry_delay=Duration(nanos=told["retry_nanos"])),
    ]
    packed = [Any() for _ in details]
    for place, detail in zip(packed, details):
        place.Pack(detail)
    status = status_pb2.Status(code=told["code"], message=told["message"], details=packed)
    context.abort_with_status(rpc_status.to_status(status))


def metadata(_, context):
    """What came with the call."""
    return json.dumps([[key, value] for key, value in context.invocation_metadata() if isinstance(value, str)]).encode()


def hang(_, context):
    """Answers when the call is over."""
    over.acquire()
    return b""


class Methods(grpc.GenericRpcHandler):
    def service(self, details):
        method = {"left": left, "fail": fail, "metadata": metadata, "hang": hang}.get(details.method.rpartition("/")[2])
        return method and grpc.unary_unary_rpc_method_handler(method)


def call(question):
    """A call, and how it has ended."""
    with grpc.insecure_channel(question["to"]) as channel:
        method = channel.unary_unary(question["method"])
        try:
            answer = method(question["message"].encode(), timeout=question.get("timeout"), metadata=question.get("metadata"))
            return {"code": "OK", "answer": answer.decode()}
        except grpc.RpcError as error:
            status = rpc_status.from_call(error)
            told = {"code": error.code().name, "message": error.details()}
            told["trailers"] = {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
            for any in status.details if status else ():
                info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
                if any.Unpack(info):
                    told["info"] = {"reason": info.reason, "domain": info.domain, "metadata": dict(info.metadata)}
                if any.Unpack(retry):
                    told["retry_nanos"] = retry.retry_delay.ToNanoseconds()
            return told


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
