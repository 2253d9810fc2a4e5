"""What KServe's clients make of a server: a program for the other environment (`make peers`), never imported here.

It is given `rest` or `grpc`, an address, and a JSON object of cases by datatype; it prints what it found as JSON. Raw
elements go to and fro in hexadecimal, so that no text form stands between the two environments.
"""

import asyncio
import json
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

TIMEOUT_S = 10


async def over_rest(url: str, cases: dict[str, Any]) -> dict[str, Any]:
    """Ask everything that the REST client can."""
    found: dict[str, Any] = {"binary": {}, "json": {}}
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=TIMEOUT_S)) as client:
        found["live"] = await client.is_server_live(url)
        found["ready"] = await client.is_server_ready(url)
        found["model_ready"] = await client.is_model_ready(url, "typed")
        found["unknown_ready"] = await client.is_model_ready(url, "no-such-model")
        for datatype, case in cases.items():
            model, values = case["model"], values_of(case)
            request = request_of(model, datatype, values, parameters={"binary_data_output": True})
            found["binary"][datatype] = answered(await client.infer(url, request, model_name=model))
            if datatype != "FP16":  # which KServe's client refuses to say in JSON
                request = request_of(model, datatype, values, binary=False)
                found["json"][datatype] = answered(await client.infer(url, request, model_name=model))
        values = values_of(cases["FP32"])
        request = request_of("identity-fp32", "FP32", values, request_id="request-9")
        answer = await client.infer(url, request, model_name="identity-fp32")
        found["id"], found["model_name"] = answer.id, answer.model_name
        for name, model in (("unknown", "no-such-model"), ("datatype", "identity-fp64")):
            try:
                await client.infer(url, request_of(model, "FP32", values), model_name=model)
            except httpx.HTTPStatusError as error:
                found[name] = str(error)
    return found


async def over_grpc(address: str, cases: dict[str, Any]) -> dict[str, Any]:
    """Ask everything that the gRPC client can."""
    found: dict[str, Any] = {"binary": {}}
    async with InferenceGRPCClient(address, timeout=TIMEOUT_S) as client:
        found["live"] = await client.is_server_live()
        found["ready"] = await client.is_server_ready()
        found["model_ready"] = await client.is_model_ready("typed")
        for datatype, case in cases.items():
            found["binary"][datatype] = answered(
                await client.infer(request_of(case["model"], datatype, values_of(case)))
            )
        try:
            await client.infer(request_of("no-such-model", "FP32", values_of(cases["FP32"])))
        except grpc.aio.AioRpcError as error:
            found["unknown"] = f"{error.code().name}: {error.details()}"
    return found


def request_of(model: str, datatype: str, values: Any, *, binary: bool = True, **fields: Any) -> InferRequest:
    """Make a request of one input `x`."""
    given = InferInput(name="x", shape=list(values.shape), datatype=datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[given], **fields)


def values_of(case: dict[str, Any]) -> Any:
    """Make a case's array."""
    if case["dtype"] is None:
        return np.array(case["texts"], dtype=object).reshape(case["shape"])
    return np.frombuffer(bytes.fromhex(case["hex"]), case["dtype"]).reshape(case["shape"])


def answered(answer: Any) -> Any:
    """Say the first output: texts, or raw elements in hexadecimal."""
    array = answer.outputs[0].as_numpy()
    if array.dtype == object:
        return [element.decode() if isinstance(element, bytes) else element for element in array.ravel()]
    return np.ascontiguousarray(array).tobytes().hex()


if __name__ == "__main__":
    over = {"rest": over_rest, "grpc": over_grpc}[sys.argv[1]]
    json.dump(asyncio.run(over(sys.argv[2], json.loads(sys.argv[3]))), sys.stdout)
