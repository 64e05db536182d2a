"""Put the example's inputs on the S3 server: predictors, and models trained from its plots.

Runs in the image compute.  What is there already is left as it is.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import boto3
from botocore.exceptions import ClientError

from muster import storage
from muster.laptop.request import EXAMPLE_TRAITS, PLOTS_NAME, PREDICTORS_NAME

BUCKET = "muster"
FOLDER = f"s3://{BUCKET}/example"
TRAINED = f"{FOLDER}/models/trained"


def make_bucket(name: str) -> None:
    """Make a bucket unless it is there."""
    try:
        boto3.client("s3").create_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
            raise


def make_inputs(folder: Path) -> None:
    """Make region and models in a folder, and put them on the server."""
    subprocess.run([sys.executable, "-m", "muster.laptop.example_region", str(folder)], check=True)
    predictors = f"{FOLDER}/{PREDICTORS_NAME}"
    storage.deposit(predictors, folder / PREDICTORS_NAME, replace=True)
    arguments = ["--plots", str(folder / PLOTS_NAME), "--predictors", predictors]
    for trait, unit in EXAMPLE_TRAITS.items():
        arguments += ["--traits", trait, "--unit", f"{trait}={unit}"]
    command = [sys.executable, "-m", "muster", "traits", "train", "--overwrite"]
    subprocess.run([*command, "--output", f"{FOLDER}/models", *arguments], check=True)
    storage.write_text(TRAINED, "")


if __name__ == "__main__":
    make_bucket(BUCKET)
    if not storage.exists(TRAINED):
        with tempfile.TemporaryDirectory() as scratch:
            make_inputs(Path(scratch))
