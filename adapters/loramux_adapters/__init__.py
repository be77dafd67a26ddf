"""The domain of loramux: adapters, versions, where they live and how they move. Imports no other loramux package."""
