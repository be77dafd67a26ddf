#!/bin/sh
# Every door once, with curl: OpenAI's, TGI's, SageMaker's containers' (LMI), adapters.
#
#   LORAMUX_API_KEY=lmx_... LORAMUX_ADMIN_KEY=lmx_... sh curl.sh [adapter directory]
set -eu
url=${LORAMUX_URL:-http://127.0.0.1:8080}
adapter=${ADAPTER:-pirate}
prompt='<|im_start|>user\nHow do I make tea?<|im_end|>\n<|im_start|>assistant\n'

post() { # path, body, further arguments
    path=$1 body=$2
    shift 2
    echo "== POST $path"
    curl --silent --show-error --fail-with-body --no-buffer "$url$path" -H "Content-Type: application/json" \
        -H "Authorization: Bearer $LORAMUX_API_KEY" -d "$body" "$@"
    echo
}

post /v1/chat/completions '{"model": "'"$adapter"'", "max_tokens": 24, "temperature": 0,
    "messages": [{"role": "user", "content": "How do I make tea?"}]}'
post /v1/completions '{"model": "'"$adapter"'", "max_tokens": 24, "temperature": 0, "prompt": "'"$prompt"'"}'

# Text Generation Inference: one answer, and a stream.
post /generate '{"inputs": "'"$prompt"'", "parameters": {"adapter_id": "'"$adapter"'", "max_new_tokens": 24}}'
post /generate_stream '{"inputs": "'"$prompt"'", "parameters": {"adapter_id": "'"$adapter"'", "max_new_tokens": 8}}'

# What SageMaker asks of a container; the header is the one that it sets for an adapter.
echo "== GET /ping"
curl --silent --show-error --fail "$url/ping" --output /dev/null --write-out '%{http_code}\n'
post /invocations '{"inputs": "'"$prompt"'", "parameters": {"max_new_tokens": 24}}' \
    -H "X-Amzn-SageMaker-Adapter-Identifier: $adapter"

# LMI's adapters: a directory that the gateway may read (artifacts.roots), registered and taken away. An admin key.
if [ $# -gt 0 ]; then
    echo "== POST and DELETE /adapters"
    curl --silent --show-error --fail-with-body "$url/adapters" -H "Authorization: Bearer $LORAMUX_ADMIN_KEY" \
        -H "Content-Type: application/json" -d '{"name": "curl-made", "src": "'"$1"'"}'
    echo
    post /invocations '{"inputs": "'"$prompt"'", "parameters": {"max_new_tokens": 8}}' \
        -H "X-Amzn-SageMaker-Adapter-Identifier: curl-made"
    curl --silent --show-error --fail-with-body -X DELETE "$url/adapters/curl-made" \
        -H "Authorization: Bearer $LORAMUX_ADMIN_KEY"
    echo
fi
