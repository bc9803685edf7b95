"""`cairn pipeline`: the DAG as a pipeline for Kubeflow."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cairn.cli.output import AsJson, print_json
from cairn.lineage.artifact import written_aside

app = typer.Typer(name="pipeline", help="The DAG as a pipeline for Kubeflow.", no_args_is_help=True)


@app.command("compile")
def compile_pipeline(
    profile: Annotated[Path | None, typer.Option(help="Resource profile: images by digest, and machines.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the pipeline to this file instead of printing it.")] = None,
    json: AsJson = False,
) -> None:
    """Compile the pipeline. The recipe is not in it: it is a parameter of every run."""
    from components.image import PLACEHOLDER
    from pipelines.pretraining import compiled
    from pipelines.profile import Profile

    text = compiled(Profile.read(profile) if profile else Profile())
    if output is not None:
        with written_aside(output) as aside:
            aside.write_text(text)
        print(f"{output} written")
    elif json:
        from ruamel.yaml import YAML

        # Settings of a platform are a document of their own, under a key that the pipeline does not have.
        documents = YAML(typ="safe").load_all(text)
        print_json({key: value for document in documents for key, value in document.items()})
    else:
        print(text, end="")
    if PLACEHOLDER in text:
        print("images are placeholders, so it cannot be submitted: name them in a profile (--profile)", file=sys.stderr)
