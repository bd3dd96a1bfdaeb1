"""openai-agents: an agent over chat completions and over Responses, streamed, with a tool and a structured answer."""

import asyncio
import os
from typing import Annotated

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

set_tracing_disabled(True)
CLIENT = AsyncOpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["KEY"], max_retries=0, timeout=120)
ASKED = "Say yes."
# Responses that are cut off are an error to this library, so there is room to the end of an answer.
ROOM = 400


class Weather(BaseModel):
    """The weather of a city."""

    city: str = Field(max_length=20)


@function_tool
def look_up(city: Annotated[str, Field(max_length=20)]) -> str:
    """Look up the weather of a city."""
    return f"rain in {city}"


async def main() -> None:
    for model in (OpenAIChatCompletionsModel("toy", CLIENT), OpenAIResponsesModel("toy", CLIENT)):
        few = ModelSettings(max_tokens=ROOM, temperature=0)
        plain = Agent(name="plain", instructions="You are brief.", model=model, model_settings=few)
        result = await Runner.run(plain, ASKED)
        assert result.final_output, model
        again = await Runner.run(plain, [*result.to_input_list(), {"role": "user", "content": "And tomorrow?"}])
        assert again.final_output
        streamed = Runner.run_streamed(plain, ASKED)
        events = [event async for event in streamed.stream_events()]
        assert len(events) > 3
        assert streamed.final_output
        shaped = Agent(name="shaped", model=model, output_type=Weather, model_settings=few)
        assert isinstance((await Runner.run(shaped, ASKED)).final_output, Weather)
        has_to = ModelSettings(max_tokens=ROOM, temperature=0, tool_choice="required")
        tools = Agent(name="tools", model=model, tools=[look_up], model_settings=has_to,
                      tool_use_behavior="stop_on_first_tool")  # fmt: skip
        assert (await Runner.run(tools, ASKED)).final_output.startswith("rain in")


asyncio.run(main())
