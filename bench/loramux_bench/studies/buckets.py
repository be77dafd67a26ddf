"""Adapters in an S3-protocol store, for as long as a study needs them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from loramux_bench.errors import EndpointError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


@contextmanager
def uploaded(
    adapters: Mapping[str, Path], *, endpoint: str, bucket: str, environment: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """`s3://` sources by name, of directories of files. The bucket is made where it is not there; what was uploaded
    goes with the block. `environment` holds the credentials, as boto3 names them; what it lacks is found by AWS's
    usual means. Raises `EndpointError`."""
    client = boto3.session.Session(
        aws_access_key_id=environment.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY"),
        region_name=environment.get("AWS_DEFAULT_REGION"),
    ).client("s3", endpoint_url=endpoint)
    keys: list[str] = []
    try:
        try:
            if not _there(client, bucket):
                client.create_bucket(Bucket=bucket)
            for name, directory in adapters.items():
                for path in sorted(directory.iterdir()):
                    keys.append(f"{name}/{path.name}")
                    client.upload_file(str(path), bucket, keys[-1])
        except (BotoCoreError, ClientError) as error:
            raise EndpointError(f"Adapters can not be uploaded to {endpoint}: {error}") from error
        yield {name: f"s3://{bucket}/{name}/" for name in adapters}
    finally:
        for key in keys:
            try:
                client.delete_object(Bucket=bucket, Key=key)
            except (BotoCoreError, ClientError):
                break  # the store is gone, or does not let us
        client.close()


def _there(client: "S3Client", bucket: str) -> bool:
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
            return False
        raise
    return True
