"""The Kubeflow component."""

from kfp.dsl import ContainerSpec, Dataset, Input, Markdown, Metrics, Model, Output, container_component

from components.container import DigestFile, container


@container_component
def evaluate(
    recipe: str,
    store: str,
    model: Input[Model],
    model_digest: str,
    documents: Input[Dataset],
    documents_digest: str,
    scores: Output[Dataset],
    scores_digest: DigestFile,
    metrics: Output[Metrics],
    page: Output[Markdown],
    run: str = "",
) -> ContainerSpec:
    """Scores the exported files in bits per byte on held-out text, beside general-purpose compressors."""
    return container(
        "evaluate",
        recipe,
        store,
        inputs={"model": (model, model_digest), "documents": (documents, documents_digest)},
        outputs={"scores": scores},
        run=run,
        page=page,
    )
