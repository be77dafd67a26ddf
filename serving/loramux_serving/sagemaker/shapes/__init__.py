"""Requests and answers of SageMaker's operations: of its model, what this gateway reads or answers.

Structs are named as the model's shapes, and fields, in snake case, as their members; a test compares them with the
model that botocore has. Members that are not here are dropped, as the service does with those that it does not know.
"""
