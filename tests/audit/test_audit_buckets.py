"""`cairn audit` where nothing lies on this machine: the store in a bucket, the sources in one that keeps versions."""

import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from cairn.audit.verdicts import Verdict
from cairn.audit.walk import audit
from cairn.lineage import signing
from cairn.lineage.artifact import digest_of
from cairn.lineage.store import Store
from tests.audit.attacks import names, wrong
from tests.pipelines.project import Project, write_text
from tests.pipelines.test_pins import point_at


@pytest.fixture
def bucket(s3: str) -> Any:
    """A client of the S3 server, which has a bucket `versions` that keeps versions."""
    client = boto3.client("s3")
    client.create_bucket(Bucket="versions")
    client.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    return client


@pytest.fixture
def documents(s3: str, bucket: Any, tmp_path: Path) -> str:
    """The digest of documents that were made from the bucket and pushed to the store."""
    project = Project.create(tmp_path / "project")
    write_text(tmp_path / "texts", 8)
    for path in (tmp_path / "texts").iterdir():
        bucket.put_object(Bucket="versions", Key=f"text/{path.name}", Body=path.read_bytes())
    recipe = project.recipe()
    recipe["snapshot"]["sources"][0]["uri"] = "s3://versions/text"
    project.write_recipe(recipe)
    point_at(project, s3)
    project.run("python", "-m", "components.snapshot", "--output", "sources=sources.lock.json")
    words = ["--input", "sources=sources.lock.json", "--output", "documents=artifacts/documents"]
    project.run("python", "-m", "components.ingest", *words)
    Store(s3).put(project.root / "artifacts/documents")
    return digest_of(project.root / "artifacts/documents") or ""


def test_what_lies_in_buckets_is_read_there_again(s3: str, bucket: Any, documents: str) -> None:
    # What was read stays under its version, whatever comes after it.
    bucket.put_object(Bucket="versions", Key="text/0001.txt", Body=b"a later one")
    keys = signing.trusted_keys()
    found = audit(documents, store=Store(s3), keys=keys)
    assert wrong(found) == []
    objects = [node for node in found.nodes.values() if node.kind == "object"]
    assert len(objects) == 8
    said = {one.said for node in objects for one in node.findings if one.verdict is Verdict.BYTES_MATCH}
    assert all("read again from its own store" in one for one in said)
    assert len(said) == 8
    listed = bucket.list_object_versions(Bucket="versions", Prefix="text/0002.txt")["Versions"]
    bucket.delete_object(Bucket="versions", Key="text/0002.txt", VersionId=listed[0]["VersionId"])
    pin = json.loads(Store(s3).read(f"pins/{documents}.json") or b"")
    md5 = next(one["md5"] for one in pin["members"] if one["path"].startswith("train/"))
    bucket.put_object(Bucket="stones", Key=f"cairn/files/md5/{md5[:2]}/{md5[2:]}", Body=b"of somebody else")
    again = audit(documents, store=Store(s3), keys=keys)
    assert names(again, "MISSING", "s3://versions/text/0002.txt", listed[0]["VersionId"])
    assert names(again, "TAMPERED", "documents", f"files/md5/{md5[:2]}/{md5[2:]}")
