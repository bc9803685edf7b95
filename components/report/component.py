"""The Kubeflow component."""

from kfp.dsl import HTML, ContainerSpec, Dataset, Input, Model, Output, container_component

from components.container import DigestFile, container


@container_component
def report(
    recipe: str,
    store: str,
    documents: Input[Dataset],
    documents_digest: str,
    tokens: Input[Dataset],
    tokens_digest: str,
    checkpoint: Input[Model],
    checkpoint_digest: str,
    model: Input[Model],
    model_digest: str,
    scores: Input[Dataset],
    scores_digest: str,
    report: Output[Dataset],
    report_digest: DigestFile,
    page: Output[HTML],
    run: str = "",
) -> ContainerSpec:
    """One page that shows the run, its scores, its data and what it was made from."""
    return container(
        "report",
        recipe,
        store,
        inputs={
            "documents": (documents, documents_digest),
            "tokens": (tokens, tokens_digest),
            "checkpoint": (checkpoint, checkpoint_digest),
            "model": (model, model_digest),
            "scores": (scores, scores_digest),
        },
        outputs={"report": report},
        run=run,
        page=page,
    )
