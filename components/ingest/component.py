"""The Kubeflow component."""

from kfp.dsl import ContainerSpec, Dataset, Input, Markdown, Metrics, Output, container_component

from components.container import DigestFile, container


@container_component
def ingest(
    recipe: str,
    store: str,
    sources: Input[Dataset],
    sources_digest: str,
    documents: Output[Dataset],
    documents_digest: DigestFile,
    metrics: Output[Metrics],
    page: Output[Markdown],
    run: str = "",
) -> ContainerSpec:
    """Reads the source objects into deduplicated, filtered documents in three splits, with a ledger of every drop."""
    return container(
        "ingest",
        recipe,
        store,
        inputs={"sources": (sources, sources_digest)},
        outputs={"documents": documents},
        run=run,
        page=page,
    )
