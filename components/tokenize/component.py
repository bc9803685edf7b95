"""The Kubeflow component."""

from kfp.dsl import Artifact, ContainerSpec, Dataset, Input, Markdown, Metrics, Output, container_component

from components.container import DigestFile, container


@container_component
def tokenize(
    recipe: str,
    store: str,
    documents: Input[Dataset],
    documents_digest: str,
    tokenizer: Output[Artifact],
    tokenizer_digest: DigestFile,
    tokens: Output[Dataset],
    tokens_digest: DigestFile,
    metrics: Output[Metrics],
    page: Output[Markdown],
    run: str = "",
) -> ContainerSpec:
    """Trains a byte-level BPE tokenizer, or takes one, and writes token shards that lead back to documents."""
    return container(
        "tokenize",
        recipe,
        store,
        inputs={"documents": (documents, documents_digest)},
        outputs={"tokenizer": tokenizer, "tokens": tokens},
        run=run,
        page=page,
    )
