"""instructor: a structured answer in its modes, streamed in parts, and as a list."""

import os

import instructor
from openai import OpenAI
from pydantic import BaseModel, Field

CLIENT = OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["KEY"], max_retries=0, timeout=120)
SAID = [{"role": "user", "content": "Describe the weather in Paris."}]


class Weather(BaseModel):
    """The weather of a city."""

    city: str = Field(max_length=20)
    degrees: int = Field(ge=-99, le=99)


for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA):
    client = instructor.from_openai(CLIENT, mode=mode)
    asked = {"model": "toy", "response_model": Weather, "messages": SAID, "max_tokens": 80, "temperature": 0}
    found = client.chat.completions.create(max_retries=1, **asked)
    assert isinstance(found, Weather), mode
parts = list(
    instructor.from_openai(CLIENT, mode=instructor.Mode.JSON_SCHEMA).chat.completions.create_partial(
        model="toy", response_model=Weather, messages=SAID, max_tokens=80, temperature=0
    )
)
assert parts
assert parts[-1].city is not None
