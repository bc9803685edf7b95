"""The Kubeflow component."""

from kfp.dsl import Artifact, ContainerSpec, Dataset, Input, Metrics, Model, Output, container_component

from components.container import DigestFile, container


@container_component
def pretrain(
    recipe: str,
    store: str,
    tokens: Input[Dataset],
    tokens_digest: str,
    checkpoint: Output[Model],
    checkpoint_digest: DigestFile,
    optimizer: Output[Artifact],
    optimizer_digest: DigestFile,
    metrics: Output[Metrics],
    run: str = "",
) -> ContainerSpec:
    """Trains a language model, causal or masked, on token shards, launched by TorchX."""
    return container(
        "pretrain",
        recipe,
        store,
        inputs={"tokens": (tokens, tokens_digest)},
        outputs={"checkpoint": checkpoint, "optimizer": optimizer},
        run=run,
    )
