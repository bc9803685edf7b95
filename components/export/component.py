"""The Kubeflow component."""

from kfp.dsl import Artifact, ContainerSpec, Input, Markdown, Model, Output, container_component

from components.container import DigestFile, container


@container_component
def export(
    recipe: str,
    store: str,
    checkpoint: Input[Model],
    checkpoint_digest: str,
    tokenizer: Input[Artifact],
    tokenizer_digest: str,
    model: Output[Model],
    model_digest: DigestFile,
    page: Output[Markdown],
    run: str = "",
) -> ContainerSpec:
    """Writes a Hugging Face directory and compares it with the trainer's model, logit by logit, in a fresh process."""
    return container(
        "export",
        recipe,
        store,
        inputs={"checkpoint": (checkpoint, checkpoint_digest), "tokenizer": (tokenizer, tokenizer_digest)},
        outputs={"model": model},
        run=run,
        page=page,
    )
