"""The model card: what is known from the artifacts themselves, and where to look for the rest."""

from typing import Any

from components.export.recipe import Export
from trainer.recipe import ModelShape


def card(section: Export, manifest: dict[str, Any], shape: ModelShape, mask: str | None = None) -> str:
    """The text of README.md. It holds no date: the same model has the same card.

    mask: the text of the mask token, of a bidirectional model.
    """
    return f"""---
{_licence(section.licence)}
library_name: transformers
pipeline_tag: {"text-generation" if mask is None else "fill-mask"}
tags:
- base-model
- cairn
---

# {section.name}

{CAUSAL if mask is None else MASKED}

| | |
|---|---|
| parameters | {manifest["parameters"]:,} |
| layers, width, heads | {shape.layers}, {shape.width}, {shape.heads} |
| context | {shape.context} tokens |
| vocabulary | {manifest["vocab_size"]:,} |
| tokens seen in training | {manifest["tokens_seen"]:,} |
| steps | {manifest["step"]:,} |
| seed | {manifest["seed"]} |

{CAUSAL_USE if mask is None else MASKED_USE.format(mask=mask)}
## Where it comes from

Trained with Cairn on tokens `{manifest["tokens"]}` (sha256 of tokens.json), made with tokenizer
`{manifest["tokenizer"]}`. The attestations in the store of the project lead from this directory back to every source
object.
"""


CAUSAL = "A base language model, trained to predict the next token. It was not tuned to follow instructions."
CAUSAL_USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/this/directory")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/directory")
prompt = tokenizer(tokenizer.bos_token + "The", return_tensors="pt")
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=40)[0]))
```

In training every document came after the end-of-text token; so should a prompt.
"""
MASKED = """A base encoder, trained to guess tokens that were masked, from both sides. It is meant to be tuned for a
task, such as classification or retrieval."""
MASKED_USE = """```python
from transformers import pipeline

fill = pipeline("fill-mask", model="path/to/this/directory")
text = fill.tokenizer.bos_token + "The" + fill.tokenizer.mask_token + " of"
for guess in fill(text):
    print(f"{{guess['score']:.3f}} {{guess['sequence']}}")
```

`AutoModelForMaskedLM` loads the model, `AutoModel` what comes before its head. The mask token is `{mask}`; it stands
for one token, and a token of a word brings the space before it. In training every document came after the end-of-text
token; so should a text.
"""


def _licence(expression: str) -> str:
    """The licence as model hubs want it: an identifier in small letters, or `other` and a name."""
    if " " in expression or expression.startswith("LicenseRef-"):
        return f'license: other\nlicense_name: "{expression}"'
    return f'license: "{expression.lower()}"'
