"""Locust users, one class for each interface. A run makes one subclass for each of its targets (`user_class`)."""

from typing import TYPE_CHECKING, ClassVar

from locust import User, task
from locust.exception import StopUser

from loramux_bench.apis.port import Api
from loramux_bench.errors import BenchError
from loramux_bench.scenario import Target

if TYPE_CHECKING:
    from loramux_bench.runner.stage import Stage


class BenchUser(User):  # type: ignore[misc]
    """Sends what the plan says to one target, over a connection of its own, until there is nothing left."""

    abstract = True
    target: ClassVar[Target]
    stage: ClassVar["Stage"]
    _api: Api | None = None

    @task  # type: ignore[untyped-decorator]
    def request(self) -> None:
        session = self.stage.session
        if session is None:  # the preparation failed
            raise StopUser
        if self._api is None:
            try:
                self._api = session.open(self.target)
            except BenchError as error:
                session.fail(str(error))
                raise StopUser from error
            if not session.begin(self.target):
                raise StopUser
        if not session.turn(self.target, self._api):
            raise StopUser

    def on_stop(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None


class OpenAIChatUser(BenchUser):
    """`POST /v1/chat/completions`, streamed."""

    abstract = True


class OpenAICompletionsUser(BenchUser):
    """`POST /v1/completions`, streamed."""

    abstract = True


class TgiUser(BenchUser):
    """Text Generation Inference: `POST /generate_stream`."""

    abstract = True


class SageMakerUser(BenchUser):
    """SageMaker runtime through boto3: `InvokeEndpointWithResponseStream`."""

    abstract = True


class LiteLLMUser(BenchUser):
    """Any provider that LiteLLM speaks to."""

    abstract = True


USERS: dict[str, type[BenchUser]] = {
    "openai-chat": OpenAIChatUser,
    "openai-completions": OpenAICompletionsUser,
    "tgi": TgiUser,
    "sagemaker": SageMakerUser,
    "litellm": LiteLLMUser,
}


def user_class(target: Target, stage: "Stage") -> type[BenchUser]:
    """The class of this target's users; its name is the target's with the interface's."""
    base = USERS[target.api]
    name = f"{base.__name__}_{''.join(c if c.isalnum() else '_' for c in target.name)}"
    return type(name, (base,), {"abstract": False, "target": target, "stage": stage, "weight": target.weight})
