"""`/v1/models`: what a client may ask for by name."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Request

from gateway.errors import NotFound
from gateway.types import Principal

T = TypeVar("T")


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """One model in OpenAI's shape, with vLLM's `parent` for adapters: the base that they stand on."""

    id: str
    created: int
    owned_by: str
    object: str = "model"
    parent: str | None = None


def models_router(
    admit: Callable[[Request], Principal],
    aliases: Callable[[], Mapping[str, str]],
    cards: Callable[[Principal, Mapping[str, str]], Sequence[Card]],
) -> APIRouter:
    """`aliases` are those that are served, asked for in the loop; `cards` may ask the database."""
    router = APIRouter(prefix="/v1/models", tags=["models"])
    Client = Annotated[Principal, Depends(admit)]
    Served = Annotated[Any, Depends(in_loop(aliases))]

    @router.get("")
    def listing(client: Client, served: Served) -> dict[str, Any]:
        found = sorted(cards(client, served), key=lambda card: card.id)
        return {"object": "list", "data": msgspec.to_builtins(found)}

    @router.get("/{model:path}")
    def one(model: str, client: Client, served: Served) -> Any:
        for card in cards(client, served):
            if card.id == model:
                return msgspec.to_builtins(card)
        raise NotFound(
            f"The model '{model}' does not exist or you do not have access to it.",
            param="model",
            code="model_not_found",
        )

    return router


def in_loop(read: Callable[[], T]) -> Callable[[], Awaitable[T]]:
    """A dependency: what `read` says, in the event loop's thread, where the fleet lives."""

    async def value() -> T:
        return read()

    return value
