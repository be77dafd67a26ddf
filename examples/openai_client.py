"""OpenAI's own client: the base, an adapter, a stream, and what there is to ask for.

LORAMUX_API_KEY=lmx_... python openai_client.py
"""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("LORAMUX_URL", "http://127.0.0.1:8080") + "/v1",
    api_key=os.environ["LORAMUX_API_KEY"],
)
adapter = os.environ.get("ADAPTER", "pirate")
question = "How do I make tea?"

models = list(client.models.list())
base = next(model.id for model in models if model.model_extra and model.model_extra["parent"] is None)
print("models:", ", ".join(model.id for model in models))

for name in (base, adapter):
    answer = client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": question}], max_tokens=24, temperature=0
    )
    print(f"{name}: {answer.choices[0].message.content}")

stream = client.chat.completions.create(
    model=adapter,
    messages=[{"role": "user", "content": question}],
    max_tokens=24,
    temperature=0,
    stream=True,
    stream_options={"include_usage": True},
)
print("streamed: ", end="")
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    elif chunk.usage:
        print(f"\ntokens: {chunk.usage.completion_tokens}")
