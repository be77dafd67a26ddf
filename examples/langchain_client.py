"""LangChain: `ChatOpenAI` with another address, in a chain, one adapter a step.

LORAMUX_API_KEY=lmx_... python langchain_client.py
"""

import os

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI


def model(name: str) -> ChatOpenAI:
    return ChatOpenAI(
        model=name,
        base_url=os.environ.get("LORAMUX_URL", "http://127.0.0.1:8080") + "/v1",
        api_key=os.environ["LORAMUX_API_KEY"],
        max_tokens=24,
        temperature=0,
    )


adapter = os.environ.get("ADAPTER", "pirate")
prompt = ChatPromptTemplate.from_messages([("user", "{question}")])
chain = prompt | model(adapter) | StrOutputParser()

print(f"{adapter}: {chain.invoke({'question': 'How do I make tea?'})}")
print("streamed: ", end="")
for text in chain.stream({"question": "How do I make tea?"}):
    print(text, end="", flush=True)
print()

answers = chain.batch([{"question": "Where is the sea?"}, {"question": "Who are you?"}])
for answer in answers:
    print(f"one of a batch: {answer}")
