"""The whole recipe: one section for each stage. `params.yaml` is the recipe in force."""

from pydantic import model_validator

from cairn.recipe import Section
from components.evaluate.recipe import Evaluate
from components.export.recipe import Export
from components.ingest.recipe import Ingest
from components.pretrain.recipe import Pretrain
from components.report.recipe import Report
from components.snapshot.recipe import Snapshot
from components.tokenize.recipe import Tokenize


class Recipe(Section):
    """What a person decides, for every stage of the DAG."""

    snapshot: Snapshot
    ingest: Ingest
    tokenize: Tokenize
    pretrain: Pretrain
    export: Export
    evaluate: Evaluate
    report: Report

    @model_validator(mode="after")
    def _a_masked_model_has_a_mask_token(self) -> "Recipe":
        if self.pretrain.masked is not None and self.tokenize.mask_token is None:
            raise ValueError(
                "pretrain.model.causal: false learns masked tokens, and tokenize.mask_token names none: set it, such "
                "as to <|mask|>"
            )
        return self
