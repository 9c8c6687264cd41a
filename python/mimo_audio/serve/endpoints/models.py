"""`/v1/models`: the one model that is served. Other endpoints take any `model`: clients have names of their own."""

from typing import Any

from fastapi import APIRouter

from mimo_audio.serve.endpoints.common import ServiceOf
from mimo_audio.serve.errors import ServeError
from mimo_audio.serve.service import Service

router = APIRouter(prefix="/v1", tags=["models"])


@router.get("/models")
async def models(service: ServiceOf) -> dict[str, Any]:
    """The model, in a list."""
    return {"object": "list", "data": [_described(service)]}


@router.get("/models/{name:path}")
async def model(name: str, service: ServiceOf) -> dict[str, Any]:
    """The model by its name."""
    if name != service.name:
        raise ServeError(404, f"model: no model {name!r:.80}, this is {service.name!r}", "model_not_found", "model")
    return _described(service)


def _described(service: Service) -> dict[str, Any]:
    return {"id": service.name, "object": "model", "created": service.created, "owned_by": "mimo-audio-native"}
