"""Calls the service of tests/grpc/real.rs at ADDRESS; prints one line of JSON for each call.

Messages are bytes as they are, and the details of a status are searched for texts, so nothing is generated.
"""

import json
import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)])
# What google.rpc.ErrorInfo may tell.
REASONS = ["UNAUTHENTICATED", "INVALID_CREDENTIAL", "FORBIDDEN", "RATE_LIMITED", "UNAVAILABLE"]


def metadata(subject):
    return [("authorization", f"Test {subject}")] if subject else []


def tell(name, call):
    told = {"name": name, "head": [], "reason": "", "rest": ""}
    try:
        answers, call = call()
        told |= {"code": "OK", "rest": ",".join(answer.decode() for answer in answers)}
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata())
        details = trailers.get("grpc-status-details-bin", b"")
        assert b"type.googleapis.com/google.rpc.ErrorInfo" in details and b"portcullis" in details, trailers
        told["code"] = error.code().name
        told["head"] = [name for name, _ in error.initial_metadata() or []]
        told["reason"] = next(reason for reason in REASONS if reason.encode() in details)
        if "www-authenticate" in trailers:
            told["rest"] = "www-authenticate"
        if b"type.googleapis.com/google.rpc.RetryInfo" in details:
            told["rest"] = "retry"
    print(json.dumps(told))


def unary(method, subject, message):
    def call():
        answer, call = channel.unary_unary(f"/orders.Orders/{method}").with_call(
            message, metadata=metadata(subject), timeout=60
        )
        return [answer], call

    return call


def watch(subject):
    def call():
        call = channel.unary_stream("/orders.Orders/Watch")(b"all", metadata=metadata(subject), timeout=60)
        return list(call), call

    return call


def send(subject):
    def call():
        answer, call = channel.stream_unary("/orders.Orders/Import").with_call(
            iter([b"a", b"b"]), metadata=metadata(subject), timeout=60
        )
        return [answer], call

    return call


def chat(subject):
    def call():
        lines = iter([b"hi ", b"ho "])
        call = channel.stream_stream("/orders.Orders/Chat")(lines, metadata=metadata(subject), timeout=60)
        return list(call), call

    return call


tell("unary", unary("Get", "alice", b"order 1"))
tell("server streaming", watch("alice"))
tell("client streaming", send("alice"))
tell("both streaming", chat("alice"))
tell("anonymous", unary("Get", None, b""))
tell("anonymous stream", watch(None))
tell("anonymous import", send(None))
tell("bad", unary("Get", "bad", b""))
tell("not allowed", unary("Purge", "alice", b""))
tell("no rule", unary("Missing", "boss", b""))
tell("not allowed by the handler", unary("Cancel", "alice", b"foreign"))
tell("undecided", unary("Broken", "alice", b""))
unary("Get", "limited", b"1")()
tell("over the quota", watch("limited"))
