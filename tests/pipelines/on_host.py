"""Runs every command of a compiled pipeline on this machine, one after the other, as Kubeflow would in pods.

python on_host.py PIPELINE.yaml ROOT PARAMETERS.json

kfp.local runs containers with docker, and refuses to run them without. Here what a container would run is run as it is,
in the current folder: the commands, placeholders and messages are those of the compiled file.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from kfp import components, local
from kfp.local import subprocess_task_handler


class HostTaskHandler(subprocess_task_handler.SubprocessTaskHandler):  # type: ignore[misc]
    """Lets container components pass."""

    env_vars: dict[str, str]

    def validate_image(self, image: str) -> None:
        """Any image: it is not used."""

    def validate_not_container_component(self, full_command: list[str]) -> None:
        """They are what is run here."""

    def run(self) -> Any:
        """In a home of its own, as a pod has one: only the key in it is the same."""
        with tempfile.TemporaryDirectory() as home:
            shutil.copy(Path(os.environ["CAIRN_HOME"], "signing-key.pem"), home)
            self.env_vars = {**self.env_vars, "CAIRN_HOME": home}
            return super().run()


def main() -> None:
    """Run the pipeline; a task that fails ends it with an exception."""
    pipeline, root, parameters = (Path(argument) for argument in sys.argv[1:])
    # What is in a buffer when a run is killed is never read.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    subprocess_task_handler.SubprocessTaskHandler = HostTaskHandler
    # Never `workspace_root`: kfp removes that folder after every run.
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
    components.load_component_from_file(str(pipeline))(**json.loads(parameters.read_text()))


if __name__ == "__main__":
    main()
