"""huggingface-hub's `InferenceClient`, as one writes it for TGI: `adapter_id` says which adapter.

LORAMUX_API_KEY=lmx_... python huggingface_client.py
"""

import os

from huggingface_hub import InferenceClient

url = os.environ.get("LORAMUX_URL", "http://127.0.0.1:8080")
client = InferenceClient(base_url=url, token=os.environ["LORAMUX_API_KEY"])
adapter = os.environ.get("ADAPTER", "pirate")
# TGI's /generate has no chat template of its own: the prompt is in the base's form.
prompt = "<|im_start|>user\nHow do I make tea?<|im_end|>\n<|im_start|>assistant\n"

print("base:", client.text_generation(prompt, max_new_tokens=24))

answer = client.text_generation(prompt, adapter_id=adapter, max_new_tokens=24, details=True)
print(f"{adapter}: {answer.generated_text}")
print(f"tokens: {answer.details.generated_tokens}, ended by {answer.details.finish_reason}")

print("streamed: ", end="")
for part in client.text_generation(prompt, adapter_id=adapter, max_new_tokens=24, details=True, stream=True):
    if not part.token.special:
        print(part.token.text, end="", flush=True)
print()

chat = client.chat_completion(
    [{"role": "user", "content": "How do I make tea?"}], model=adapter, max_tokens=24, temperature=0
)
print(f"chat: {chat.choices[0].message.content}")
