"""`/v1/models`: what a client may ask for by name."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Request

from gateway.errors import NotFound
from gateway.types import Principal


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """One model in OpenAI's shape, with vLLM's `parent` for adapters: the base that they stand on."""

    id: str
    created: int
    owned_by: str
    object: str = "model"
    parent: str | None = None


def models_router(admit: Callable[[Request], Principal], cards: Callable[[], Sequence[Card]]) -> APIRouter:
    router = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[Depends(admit)])

    @router.get("")
    async def listing() -> dict[str, Any]:
        return {"object": "list", "data": msgspec.to_builtins(sorted(cards(), key=lambda card: card.id))}

    @router.get("/{model:path}")
    async def one(model: str) -> Any:
        for card in cards():
            if card.id == model:
                return msgspec.to_builtins(card)
        raise NotFound(
            f"The model '{model}' does not exist or you do not have access to it.",
            param="model",
            code="model_not_found",
        )

    return router
