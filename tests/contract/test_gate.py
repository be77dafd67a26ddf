"""What every `relay.ports.Gate` does: the one where the books are, and a worker's, with a channel between."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from loramux_adapters.errors import (
    AdapterLost,
    EngineFailed,
    EngineUnavailable,
    Forbidden,
    LoramuxError,
    ModelNotFound,
    QueueFull,
    QueueTimeout,
    RateLimited,
    StorageFailed,
    Unauthenticated,
)
from loramux_serving.relay.ports import Passage
from loramux_serving.relay.story import CLIENT_CLOSED, Story
from loramux_serving.relay.token_usage import Usage
from loramux_serving.workers.messages import Tell
from tests.fakes.gates import Line, Scene, line
from tests.fakes.relay_services import BASE, KEY, SHOP, until


@pytest.fixture(params=["where the books are", "in a worker"])
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    scene = Scene()
    if request.param == "in a worker":
        async with line(scene):
            yield scene
    else:
        yield scene


@pytest.fixture
async def far() -> AsyncIterator[tuple[Scene, Line]]:
    """With the channel, for what only that has."""
    scene = Scene()
    async with line(scene) as between:
        yield scene, between


def story() -> Story:
    return Story("r-1", "/v1/completions", 0.0)


async def enter(
    scene: Scene,
    told: Story,
    model: str = "shop",
    *,
    key: str | None = KEY,
    sticky: str | None = None,
    end_request: Callable[[], object] = lambda: None,
) -> Passage:
    return await scene.gate.enter(key, model, sticky, told, end_request)


# --- who calls ---


async def test_a_check_notes_the_caller(scene: Scene) -> None:
    told = story()
    await scene.gate.check(KEY, told)
    assert told.key_id == "k1"


@pytest.mark.parametrize("key", [None, "Bearer bad", "Bearer \xff"])
async def test_a_check_refuses_who_is_not_known(scene: Scene, key: str | None) -> None:
    with pytest.raises(Unauthenticated):
        await scene.gate.check(key, story())


# --- passing ---


async def test_a_passage_says_where_to_go_and_notes_it(scene: Scene) -> None:
    told = story()
    passage = await enter(scene, told, "store", sticky="me")
    assert passage.url == "http://one:1"
    assert (told.key_id, told.target, told.replica, told.queue_s) == ("k1", SHOP, "r0", 0.25)
    assert (scene.names.sticky[0], scene.names.key_ids[0]) == ("me", "k1")
    assert scene.held() == (1, 0, 1, 1)
    passage.leave()
    await until(scene.idle)


async def test_the_base_has_no_version(scene: Scene) -> None:
    told = story()
    passage = await enter(scene, told, "base")
    assert told.target == BASE
    passage.leave()


async def test_many_at_a_time(scene: Scene) -> None:
    stories = [story() for _ in range(200)]
    passages = await asyncio.gather(*(enter(scene, told) for told in stories))
    assert scene.held() == (200, 0, 200, 200)
    for passage in passages:
        passage.leave()
    await until(scene.idle)
    assert len(scene.recorder.records) == 200


# --- refusals ---


class Refusal:
    """What makes the gate refuse, what with, and what is noted before."""

    def __init__(self, error: LoramuxError, prepare: Callable[[Scene], object], **asked: Any) -> None:
        self.error, self.prepare, self.asked = error, prepare, asked


def _nothing(_: Scene) -> None:
    pass


REFUSALS = [
    Refusal(Unauthenticated("No such key."), _nothing, key="Bearer bad"),
    Refusal(ModelNotFound("There is no model 'x'.", details={"param": "model"}), _nothing, model="x"),
    Refusal(Forbidden("The key is not for 'shop'."), _nothing, key="Bearer narrow"),
    *(
        Refusal(error, lambda scene, error=error: setattr(scene.admission, "error", error))  # type: ignore[misc]
        for error in (
            RateLimited("Too many.", details={"limit": 3, "per": "minute"}, retry_after_s=7.5),
            QueueFull("Full.", details={"max_queue": 2}, retry_after_s=1.0),
            QueueTimeout("Too long."),
        )
    ),
    *(
        Refusal(error, lambda scene, error=error: setattr(scene.leases, "error", error))  # type: ignore[misc]
        for error in (StorageFailed("The disk: \udcff."), LoramuxError("It failed."))
    ),
    Refusal(EngineUnavailable("No engine is ready.", retry_after_s=2.5), lambda scene: scene.fleet.replicas.clear()),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.error.code)
async def test_a_refusal_arrives_as_it_was_raised_and_holds_nothing(scene: Scene, refusal: Refusal) -> None:
    refusal.prepare(scene)
    told = story()
    with pytest.raises(LoramuxError) as caught:
        await enter(scene, told, **refusal.asked)
    error, raised = refusal.error, caught.value
    assert type(raised) is type(error)
    assert raised.message.replace("\udcff", "?") == error.message.replace("\udcff", "?")
    assert (raised.code, raised.retryable) == (error.code, error.retryable)
    assert (raised.details, raised.retry_after_s) == (error.details, error.retry_after_s)
    assert scene.idle()
    if isinstance(error, Unauthenticated):
        assert (told.key_id, told.target) == (None, None)
    else:
        assert told.key_id == "k1"
        assert told.target == (None if isinstance(error, ModelNotFound) else SHOP)
    assert scene.recorder.records == []


async def test_who_was_refused_tells_how_it_ended(scene: Scene) -> None:
    told = story()
    with pytest.raises(ModelNotFound) as caught:
        await enter(scene, told, "x")
    told.failed(caught.value)
    scene.gate.tell(told)
    await until(lambda: scene.recorder.records != [])
    (record,) = scene.recorder.records
    assert (record.request_id, record.endpoint, record.key_id) == ("r-1", "/v1/completions", "k1")
    assert (record.adapter, record.status, record.outcome) == (None, 404, "client_error")
    assert record.error_code == "model_not_found"


# --- waiting ---


async def test_a_request_waits_for_its_turn(scene: Scene) -> None:
    scene.admission.gate.clear()
    told = story()
    entering = asyncio.create_task(enter(scene, told))
    await until(lambda: scene.admission.waiting == 1)
    assert not entering.done()
    scene.admission.gate.set()
    passage = await asyncio.wait_for(entering, 5)
    assert scene.held() == (1, 0, 1, 1)
    passage.leave()
    await until(scene.idle)


async def test_who_leaves_while_it_waits_holds_nothing(scene: Scene) -> None:
    scene.admission.gate.clear()
    entering = asyncio.create_task(enter(scene, story()))
    await until(lambda: scene.admission.waiting == 1)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    await until(scene.idle)
    assert scene.recorder.records == []  # it tells by itself


@pytest.mark.parametrize("turns", range(12))
async def test_who_leaves_as_its_turn_comes_holds_nothing(scene: Scene, turns: int) -> None:
    """The answer and the end of the wait may cross on their way."""
    scene.admission.gate.clear()
    entering = asyncio.create_task(enter(scene, story()))
    await until(lambda: scene.admission.waiting == 1)
    scene.admission.gate.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    entering.cancel()
    (ended,) = await asyncio.gather(entering, return_exceptions=True)
    if not isinstance(ended, BaseException):
        ended.leave()
    await until(scene.idle)
    assert len(scene.recorder.records) == (not isinstance(ended, BaseException))


async def test_a_load_is_waited_for(scene: Scene) -> None:
    scene.leases.cold.add(SHOP.engine_name)
    scene.leases.may_stage.clear()
    entering = asyncio.create_task(enter(scene, story()))
    await until(lambda: any(place.stepped_aside for place in scene.admission.places))
    scene.leases.may_stage.set()
    passage = await asyncio.wait_for(entering, 5)
    passage.leave()
    await until(scene.idle)


# --- while it runs ---


async def test_again_goes_to_another_engine(scene: Scene) -> None:
    told = story()
    passage = await enter(scene, told)
    await passage.again(EngineFailed("It closed."))
    assert (passage.url, told.replica) == ("http://two:2", "r1")
    assert [replica.suspected for replica in scene.fleet.replicas] == [1, 0]
    assert scene.held() == (1, 0, 1, 1)
    passage.leave()
    await until(scene.idle)
    assert scene.recorder.records[0].replica == "r1"


async def test_again_is_refused_when_it_was_often_enough(scene: Scene) -> None:
    told = story()
    passage = await enter(scene, told)
    await passage.again(EngineFailed("It closed."))
    with pytest.raises(EngineUnavailable, match="No engine could answer: It hung up") as caught:
        await passage.again(EngineUnavailable("It hung up.", retry_after_s=4.0))
    assert caught.value.retry_after_s == 4.0
    told.failed(caught.value)
    passage.leave()
    await until(scene.idle)
    assert scene.recorder.records[0].error_code == "engine_unavailable"


async def test_again_tells_what_an_engine_has_lost(scene: Scene) -> None:
    passage = await enter(scene, story())
    await passage.again(AdapterLost("It has no such adapter."))
    assert scene.leases.lost_names == [SHOP.engine_name]
    passage.leave()


async def test_who_leaves_during_again_gives_all_back(scene: Scene) -> None:
    told = story()
    passage = await enter(scene, told)
    scene.leases.cold.add(SHOP.engine_name)
    scene.leases.may_stage.clear()
    trying = asyncio.create_task(passage.again(EngineFailed("It closed.")))
    await until(lambda: scene.admission.places[0].stepped_aside == 1)
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying
    told.cancelled()
    passage.leave()
    await until(lambda: scene.recorder.records != [])
    assert scene.idle()
    assert scene.recorder.records[0].outcome == "cancelled"


async def test_a_request_can_be_ended(scene: Scene) -> None:
    ended: list[str] = []
    passage = await enter(scene, story(), end_request=lambda: ended.append("now"))
    (end,) = scene.leases.ends
    end()
    await until(lambda: ended == ["now"])
    passage.leave()


async def test_leaving_records_what_the_story_tells(scene: Scene) -> None:
    told = Story("r-2", "/v1/chat/completions", 0.0)
    passage = await enter(scene, told)
    told.streamed = True
    told.ttft_s = 0.125
    told.usage = Usage(prompt_tokens=7, completion_tokens=11)
    told.answered(200)
    passage.leave()
    await until(lambda: scene.recorder.records != [])
    (record,) = scene.recorder.records
    assert (record.request_id, record.endpoint, record.key_id) == ("r-2", "/v1/chat/completions", "k1")
    assert (record.adapter, record.version, record.replica) == ("shop", 3, "r0")
    assert (record.status, record.outcome, record.error_code) == (200, "ok", None)
    assert (record.streamed, record.ttft_s, record.queue_s) == (True, 0.125, 0.25)
    assert (record.prompt_tokens, record.completion_tokens) == (7, 11)
    assert record.duration_s == pytest.approx(told.record().duration_s, abs=5.0)
    assert scene.admission.places[0].spent == 18
    assert scene.idle()


async def test_an_answer_that_broke_off_has_its_engine_looked_at(scene: Scene) -> None:
    told = story()
    passage = await enter(scene, told)
    told.interrupted(200, "engine_failed")
    passage.leave()
    await until(lambda: scene.fleet.replicas[0].suspected == 1)


# --- all of it ---


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_is_held_whatever_callers_do(scene: Scene, seed: int) -> None:
    """Callers that come, leave at any moment and try again, while places open and close and versions go cold."""
    chance = random.Random(seed)
    told: list[Story] = []

    async def caller() -> None:
        mine = story()
        told.append(mine)
        passage = None
        try:
            passage = await enter(scene, mine, chance.choice(["shop", "base", "x"]))
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
                if chance.random() < 0.3:
                    await passage.again(EngineFailed("It closed."))
            mine.answered(200)
        except LoramuxError as error:
            mine.failed(error)
        except asyncio.CancelledError:
            mine.cancelled()
            raise
        finally:
            scene.gate.tell(mine) if passage is None else passage.leave()

    tasks: list[asyncio.Task[None]] = []
    for _ in range(300):
        tasks.append(asyncio.create_task(caller()))
        if chance.random() < 0.4:
            chance.choice(tasks).cancel()
        match chance.randrange(8):
            case 0:
                scene.admission.gate.clear()
            case 1 | 2:
                scene.admission.gate.set()
            case 3:
                scene.leases.cold.add(SHOP.engine_name)
            case 4:
                scene.leases.may_stage.clear()
            case 5:
                scene.leases.may_stage.set()
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
    scene.admission.gate.set()
    scene.leases.may_stage.set()
    async with asyncio.timeout(20):
        await asyncio.gather(*tasks, return_exceptions=True)
    # A task that is cancelled before its first step tells nothing, and never came.
    await until(lambda: len(scene.recorder.records) == len(told))
    assert scene.idle()
    outcomes = [record.outcome for record in scene.recorder.records]
    assert sorted(outcomes) == sorted(each.outcome for each in told)
    assert len(set(outcomes)) > 2


# --- what only a channel has ---


async def test_with_the_worker_goes_all_that_it_held(far: tuple[Scene, Line]) -> None:
    scene, between = far
    await enter(scene, story())
    scene.admission.gate.clear()
    waiting = asyncio.create_task(enter(scene, story()))
    await until(lambda: scene.admission.waiting == 1)
    assert between.desk.requests == 2
    between.worker_end.abort()
    await until(lambda: len(scene.recorder.records) == 2)
    assert scene.idle()
    assert between.desk.requests == 0
    assert {(record.status, record.outcome) for record in scene.recorder.records} == {(CLIENT_CLOSED, "cancelled")}
    assert all(record.duration_s < 60 for record in scene.recorder.records)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_request_that_tries_again_goes_with_its_worker(far: tuple[Scene, Line]) -> None:
    scene, between = far
    passage = await enter(scene, story())
    scene.leases.cold.add(SHOP.engine_name)
    scene.leases.may_stage.clear()
    trying = asyncio.create_task(passage.again(EngineFailed("It closed.")))
    await until(lambda: scene.admission.places[0].stepped_aside == 1)
    between.worker_end.abort()
    await until(lambda: len(scene.recorder.records) == 1)
    assert scene.idle()
    trying.cancel()
    await asyncio.gather(trying, return_exceptions=True)


async def test_a_request_that_has_left_is_not_ended(far: tuple[Scene, Line]) -> None:
    scene, _ = far
    ended: list[str] = []
    passage = await enter(scene, story(), end_request=lambda: ended.append("now"))
    (end,) = scene.leases.ends
    passage.leave()
    end()
    await scene.gate.check(KEY, story())  # what was said before this answer has been heard
    assert ended == []


async def test_a_fault_of_ours_is_an_answer_too(far: tuple[Scene, Line], monkeypatch: pytest.MonkeyPatch) -> None:
    scene, _ = far

    def broken(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(scene.fleet, "pick", broken)
    with pytest.raises(LoramuxError, match="Its log says why") as caught:
        await enter(scene, story())
    assert caught.value.code == "internal_error"
    assert scene.idle()


async def test_a_name_as_long_as_a_body_stays_in_the_worker(far: tuple[Scene, Line]) -> None:
    scene, _ = far
    with pytest.raises(ModelNotFound) as caught:
        await enter(scene, story(), "x" * 1_000_000)
    assert len(caught.value.message) < 2000


async def test_what_can_not_be_read_ends_the_worker(far: tuple[Scene, Line]) -> None:
    scene, between = far
    await enter(scene, story())
    between.worker_end.send(Tell("no record"))  # type: ignore[arg-type]
    await asyncio.wait_for(between.desk.lost.wait(), 5)
    assert scene.idle()
