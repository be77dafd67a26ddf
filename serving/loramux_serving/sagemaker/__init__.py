"""The control plane of Amazon SageMaker, as its clients know it, over the registry and the replicas."""
