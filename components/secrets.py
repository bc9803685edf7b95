"""What looks like a secret. Kubeflow keeps pipelines and the parameters of their runs, and shows them to everybody who
may look at runs: a secret has no place there.

What is looked for are common names and forms. A password that is a plain word under a plain name is not found.
"""

import re
from collections.abc import Iterator

# `tokens` and `tokenizer` are words of this trade; `token` is not.
_NAMES = re.compile(
    r"(?:^|_)(?:secrets?|token|credentials?|(?:private|api|access|secret)_?keys?)(?:$|_)"
    r"|password|passwd|passphrase"  # PGPASSWORD
    r"|(?:^|_)(?:pass|pwd|pat|auth|bearer)$|_key$"
)
_NO_SECRETS = {"pwd", "oldpwd"}  # every shell sets them, to folders
_VALUES = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "an AWS key id": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "a Slack token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{35}",
    "an API key": r"\bsk-[A-Za-z0-9_-]{20,}",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.",
    # Where a value begins, or a header's does: the word stands in prose too.
    "a bearer token": r"(?i:(?:^|authorization[\"']?\s*[:=]\s*[\"']?)bearer\s+\S)",
    "a password in a URL": r"://[^/\s:@]*:[^/\s:@]+@",
    "a signed URL": r"[?&](?:X-Amz-Signature|X-Goog-Signature|sig)=",
}


def named(name: str) -> bool:
    """Whether a variable or parameter is called like a secret."""
    # accessKey, access-key and ACCESS_KEY are one name.
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|-", "_", name).lower()
    return plain not in _NO_SECRETS and bool(_NAMES.search(plain))


def kinds(text: str) -> Iterator[str]:
    """What kinds of secrets a text seems to hold. Never the secret itself."""
    yield from (kind for kind, pattern in _VALUES.items() if re.search(pattern, text))
