"""What a route adds to a request beyond its candidates: parameters, and a copy for a shadow."""

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.errors import BackendError
from router_policies.types import ErrorClass
from tests.support.waiting import until
from tests.test_pipeline import DONE, LOW, SECRET, TOKEN, WHOLE, World


def world(**route: Any) -> World:
    """Requests at home, with further keys of the route that the unclassified ones take."""
    home = [{"backend": "own", "model": "own-model"}]
    routes = [
        {"name": "open", "match": LOW, "targets": home, **route},
        {"name": "private", "targets": home},
    ]
    return World({"name": "p", "version": 3, "routes": routes})


SHADOW = {"shadow": {"share": 1.0, "target": {"backend": "rented", "model": "rented-model"}}}


async def settled(shadowed: World, rows: int) -> None:
    await until(lambda: len(shadowed.rows.settled) == rows, 5)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_shadow_gets_a_copy_and_its_answer_goes_nowhere(stream: bool) -> None:
    """The client has the first target's answer; the copy has a row, a permit and a call of its own."""
    shadowed = world(**SHADOW)
    shadowed.backends["own"].script.append([TOKEN, DONE] if stream else WHOLE)
    shadowed.backends["rented"].script.append([TOKEN, TOKEN, DONE] if stream else WHOLE)
    client = await shadowed.ask(stream=stream)
    assert client.body == (TOKEN + DONE if stream else WHOLE)
    await settled(shadowed, 2)
    (copy,) = shadowed.backends["rented"].asked
    assert copy.call_id == "call_1-shadow"
    assert copy.permit is not None
    assert copy.permit.permit.call_id == "call_1-shadow"
    assert copy.content == shadowed.backends["own"].asked[0].content
    rows = {row.call_id: row for row in shadowed.rows.settled}
    assert (rows["call_1"].tags, rows["call_1"].backend) == ((), "own")
    shadow = rows["call_1-shadow"]
    assert (shadow.tags, shadow.backend, shadow.outcome) == (("shadow",), "rented", "ok")
    assert (shadow.reason, shadow.route) == ("shadow of call_1", "open")


async def test_a_shadow_that_fails_is_nobodys_trouble() -> None:
    """Its row says so; the client's answer is whole."""
    shadowed = world(**SHADOW)
    shadowed.backends["own"].script.append(WHOLE)
    shadowed.backends["rented"].script.append(BackendError(ErrorClass.SERVER_ERROR, "no", status=500))
    assert (await shadowed.ask()).status == 200
    await settled(shadowed, 2)
    assert {row.outcome.value for row in shadowed.rows.settled} == {"ok", "failed"}


async def test_private_content_casts_no_shadow() -> None:
    """What may not leave is not copied out either."""
    shadowed = world(**SHADOW)
    shadowed.backends["own"].script.append(WHOLE)
    await shadowed.ask(content=SECRET)
    await shadowed.pipeline.aclose()
    assert shadowed.backends["rented"].asked == []
    assert len(shadowed.rows.settled) == 1


async def test_a_masked_shadow_gets_placeholders_and_the_client_its_values() -> None:
    """The copy may go out masked; the answer to the client's own request is not touched by that."""
    masking = {"share": 1.0, "target": {"backend": "rented", "model": "rented-model", "mask": True}}
    home = [{"backend": "own", "model": "own-model"}]
    shadowed = World(
        {"name": "p", "version": 3, "routes": [{"name": "all", "targets": home, "shadow": masking}]}
    )
    shadowed.backends["own"].script.append(WHOLE)
    shadowed.backends["rented"].script.append(WHOLE)
    assert (await shadowed.ask(content=SECRET)).body == WHOLE
    await settled(shadowed, 2)
    (copy,) = shadowed.backends["rented"].asked
    assert b"4111" not in copy.content
    assert b"my card is" in copy.content
    assert b"4111" in shadowed.backends["own"].asked[0].content


async def test_a_client_that_leaves_takes_no_shadow_along() -> None:
    """The copy goes on to its end when the client's own request is cancelled."""
    shadowed = world(**SHADOW)
    shadowed.backends["own"].script.append(asyncio.CancelledError())
    shadowed.backends["rented"].script.append(WHOLE)
    with pytest.raises(asyncio.CancelledError):
        await shadowed.ask()
    await settled(shadowed, 2)
    assert {row.outcome.value for row in shadowed.rows.settled} == {"ok", "client_closed"}


async def test_the_end_of_the_gateway_ends_shadows() -> None:
    """What is under way is cancelled and settled, so that no row is lost."""
    shadowed = world(**SHADOW)
    shadowed.backends["own"].script.append(WHOLE)
    await shadowed.ask()
    await shadowed.pipeline.aclose()
    assert {row.call_id for row in shadowed.rows.settled} <= {"call_1", "call_1-shadow"}
    assert not shadowed.pipeline._shadows._tasks


async def test_parameters_go_upstream() -> None:
    """A cap and an override are in what the backend gets, and in what the permit is sealed for."""
    changed = world(cap={"output_tokens": 9}, override={"temperature": 0})
    changed.backends["own"].script.append(WHOLE)
    await changed.ask(max_tokens=50, temperature=1.5)
    sent = msgspec.json.decode(changed.backends["own"].asked[0].content)
    assert (sent["max_tokens"], sent["temperature"]) == (9, 0)
