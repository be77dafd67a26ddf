"""The life of Amazon SageMaker's multi-adapter inference, as its notebooks have it, with boto3 and the `sagemaker` SDK
(version 2): a base model behind an endpoint, an adapter on it, both invoked, the adapter updated, all of it deleted.

Against loramux only addresses are set; credentials are made by `loramux keys create --role admin --aws`:

    export AWS_ENDPOINT_URL_SAGEMAKER=http://127.0.0.1:8080 AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=http://127.0.0.1:8080
    export AWS_ENDPOINT_URL_S3=http://127.0.0.1:9000   # a store of your own; not set: Amazon's
    export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... AWS_DEFAULT_REGION=us-east-1
    python sagemaker_notebook.py deploy/demo/adapters/pirate deploy/demo/adapters/pirate-v2
"""

import argparse
import io
import json
import tarfile
from pathlib import Path

import boto3
import sagemaker
from botocore.exceptions import ClientError

arguments = argparse.ArgumentParser(description="The life of a SageMaker notebook on multi-adapter inference.")
arguments.add_argument("adapter", type=Path, help="directory of the adapter")
arguments.add_argument("update", type=Path, help="directory of what replaces it")
arguments.add_argument("--model", default="SmolLM2-135M-Instruct", help="the base: HF_MODEL_ID")
arguments.add_argument("--bucket", default="loramux-notebook", help="where adapters' archives go")
arguments.add_argument("--role", default="arn:aws:iam::000000000000:role/sagemaker", help="execution role")
arguments.add_argument("--name", default="notebook", help="what every name here begins with")
asked = arguments.parse_args()

# 1. Clients. The bucket is made if it is not there.
sm = boto3.client("sagemaker")
runtime = boto3.client("sagemaker-runtime")
s3 = boto3.client("s3")
session = sagemaker.Session(default_bucket=asked.bucket)
bucket = session.default_bucket()
region = session.boto_region_name

# 2. A model: a container with LMI's environment.
model_name = endpoint_name = asked.name
config_name = f"{asked.name}-config"
base_name = f"{asked.name}-base"
adapter_name = f"{asked.name}-adapter"
sm.create_model(
    ModelName=model_name,
    ExecutionRoleArn=asked.role,
    PrimaryContainer={
        "Image": f"763104351884.dkr.ecr.{region}.amazonaws.com/djl-inference:0.36.0-lmi18.0.0-cu128",
        "Environment": {
            "HF_MODEL_ID": asked.model,
            "OPTION_ROLLING_BATCH": "vllm",
            "OPTION_ENABLE_LORA": "true",
            "OPTION_MAX_LORAS": "4",
            "OPTION_MAX_CPU_LORAS": "8",
            "OPTION_MAX_LORA_RANK": "16",
        },
    },
)

# 3. An endpoint, as yet without a model.
sm.create_endpoint_config(
    EndpointConfigName=config_name,
    ExecutionRoleArn=asked.role,
    ProductionVariants=[
        {
            "VariantName": "AllTraffic",
            "InstanceType": "ml.g5.xlarge",
            "InitialInstanceCount": 1,
            "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
        }
    ],
)
sm.create_endpoint(EndpointName=endpoint_name, EndpointConfigName=config_name)
sm.get_waiter("endpoint_in_service").wait(EndpointName=endpoint_name)
print(f"endpoint: {sm.describe_endpoint(EndpointName=endpoint_name)['EndpointStatus']}")

# 4. The base inference component: the model, on that endpoint.
created = sm.create_inference_component(
    InferenceComponentName=base_name,
    EndpointName=endpoint_name,
    VariantName="AllTraffic",
    Specification={
        "ModelName": model_name,
        "StartupParameters": {"ContainerStartupHealthCheckTimeoutInSeconds": 900},
        "ComputeResourceRequirements": {"NumberOfCpuCoresRequired": 1, "MinMemoryRequiredInMb": 1024},
    },
    RuntimeConfig={"CopyCount": 1},
)
session.wait_for_inference_component(base_name, poll=1)
print(f"\nbase: {created['InferenceComponentArn']}")


# 5. The adapter's archive, and an inference component on top of the base.
def upload(directory: Path, key: str) -> str:
    """To S3, as a .tar.gz with the files at its root. Its address."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for path in sorted(directory.iterdir()):
            tar.add(path, arcname=path.name)
    s3.put_object(Bucket=bucket, Key=key, Body=archive.getvalue())
    return f"s3://{bucket}/{key}"


sm.create_inference_component(
    InferenceComponentName=adapter_name,
    EndpointName=endpoint_name,
    Specification={
        "BaseInferenceComponentName": base_name,
        "Container": {"ArtifactUrl": upload(asked.adapter, f"{asked.name}/adapter-1.tar.gz")},
    },
)
session.wait_for_inference_component(adapter_name, poll=1)
listed = sm.list_inference_components(
    EndpointNameEquals=endpoint_name, NameContains=asked.name, SortBy="Name", SortOrder="Ascending"
)["InferenceComponents"]
print(f"\ncomponents: {', '.join(each['InferenceComponentName'] for each in listed)}")

# 6. Invoke the base and the adapter, and compare.
prompt = "<|im_start|>user\nHow do I make tea?<|im_end|>\n<|im_start|>assistant\n"
request = {"inputs": prompt, "parameters": {"do_sample": False, "max_new_tokens": 24}}


def invoke(component: str) -> str:
    answer = runtime.invoke_endpoint(
        EndpointName=endpoint_name,
        InferenceComponentName=component,
        ContentType="application/json",
        Body=json.dumps(request),
    )
    return str(json.loads(answer["Body"].read())["generated_text"])


print(f"{base_name} says: {invoke(base_name)}")
print(f"{adapter_name} says: {invoke(adapter_name)}")

# 7. The same as a stream.
stream = runtime.invoke_endpoint_with_response_stream(
    EndpointName=endpoint_name,
    InferenceComponentName=adapter_name,
    ContentType="application/json",
    Body=json.dumps({**request, "stream": True}),
)
parts = b"".join(event["PayloadPart"]["Bytes"] for event in stream["Body"])
tokens = [json.loads(line)["token"] for line in parts.splitlines() if line]
print("streamed: " + "".join(token["text"] for token in tokens if not token.get("special_token")))

# 8. Another artifact for the same component. Whoever asks meanwhile gets an answer of one of the two.
sm.update_inference_component(
    InferenceComponentName=adapter_name,
    Specification={"Container": {"ArtifactUrl": upload(asked.update, f"{asked.name}/adapter-2.tar.gz")}},
)
session.wait_for_inference_component(adapter_name, poll=1)
print(f"\n{adapter_name} says, updated: {invoke(adapter_name)}")

# 9. Everything goes. The base would take its adapters along.
session.delete_inference_component(adapter_name, wait=True)
try:
    invoke(adapter_name)
except ClientError as error:
    print(f"{adapter_name}, deleted: {error.response['Error']['Code']}")
session.delete_inference_component(base_name, wait=True)
session.delete_endpoint(endpoint_name)
session.delete_endpoint_config(config_name)
session.delete_model(model_name)
left = sm.list_inference_components(EndpointNameEquals=endpoint_name)["InferenceComponents"]
print(f"left: {len(left)}")
