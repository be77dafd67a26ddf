"""LiteLLM: an adapter of the gateway is one more model, as `openai/NAME`.

LORAMUX_API_KEY=lmx_... python litellm_client.py
"""

import os

import litellm

where = {
    "api_base": os.environ.get("LORAMUX_URL", "http://127.0.0.1:8080") + "/v1",
    "api_key": os.environ["LORAMUX_API_KEY"],
}
adapter = os.environ.get("ADAPTER", "pirate")
messages = [{"role": "user", "content": "How do I make tea?"}]

answer = litellm.completion(model=f"openai/{adapter}", messages=messages, max_tokens=24, temperature=0, **where)
print(f"{adapter}: {answer.choices[0].message.content}")
print(f"tokens: {answer.usage.completion_tokens}")

print("streamed: ", end="")
for chunk in litellm.completion(
    model=f"openai/{adapter}", messages=messages, max_tokens=24, temperature=0, stream=True, **where
):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()

try:
    litellm.completion(model="openai/nobody", messages=messages, **where)
except litellm.NotFoundError as error:
    print(f"an unknown adapter: {error.status_code}")
