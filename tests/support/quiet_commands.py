"""A stand-in for Pulumi's command provider whose steps run nowhere: they print what the real ones print.

It speaks the engine's own protocol, so that stacks with real states can be made without any machine.
"""

from __future__ import annotations

import importlib.metadata
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from tests.support.in_memory import InMemoryBackend

Json = dict[str, Any]


def _plain(message: struct_pb2.Struct) -> Json:
    plain: Json = json_format.MessageToDict(message)
    return plain


def _message(plain: Json) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    made.update(plain)
    return made


class QuietCommands(provider_pb2_grpc.ResourceProviderServicer):
    """Serves any number of runs of `pulumi`, as long as it lives."""

    def __init__(self) -> None:
        self.backend = InMemoryBackend()
        self.server = grpc.server(ThreadPoolExecutor(32))
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def outputs(self, urn: str, kind: str, inputs: Json) -> Json:
        """What a step is and prints."""
        if kind == "command:remote:CopyToRemote":
            return inputs
        name = urn.rpartition("::")[2]
        if kind == "command:local:Command" and "create" in inputs:
            printed = self.backend.local(name, inputs["create"], inputs["stdin"]).stdout
        else:
            printed = json.dumps({"step": name, "nonce": "0123456789abcdef"})
        return {**inputs, "stdout": printed, "stderr": ""}

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.ProviderHandshakeResponse()

    def Attach(self, request: Any, context: grpc.ServicerContext) -> Any:
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:
        return empty_pb2.Empty()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        return plugin_pb2.PluginInfo(version=importlib.metadata.version("pulumi_command"))

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.ConfigureResponse()

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, context: grpc.ServicerContext) -> Any:
        old, new = _plain(request.old_inputs), _plain(request.news)
        changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        some, none = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE
        replaces = [name for name in changed if name == "triggers"]
        return provider_pb2.DiffResponse(changes=some if changed else none, diffs=changed, replaces=replaces)

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:
        inputs = _plain(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=request.properties)
        outputs = self.outputs(request.urn, request.type, inputs)
        return provider_pb2.CreateResponse(id="quiet", properties=_message(outputs))

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.preview:
            return provider_pb2.UpdateResponse(properties=request.news)
        return provider_pb2.UpdateResponse(
            properties=_message(self.outputs(request.urn, request.type, _plain(request.news)))
        )

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:
        return empty_pb2.Empty()
