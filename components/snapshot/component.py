"""The Kubeflow component."""

from kfp.dsl import ContainerSpec, Dataset, Markdown, Output, container_component

from components.container import DigestFile, container


@container_component
def snapshot(
    recipe: str,
    store: str,
    sources: Output[Dataset],
    sources_digest: DigestFile,
    page: Output[Markdown],
    locked: str = "",
    run: str = "",
) -> ContainerSpec:
    """Resolves the sources to a lock file and copies their objects into the store."""
    return container(
        "snapshot", recipe, store, inputs={}, outputs={"sources": sources}, run=run, page=page, locked=locked
    )
