"""The deployment files that several tests compare with each other."""

import re

from tests.system.conftest import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.30", "1.33", "1.37")
"""The Kubernetes versions whose schemas the objects are validated against."""
DOCUMENTED = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
IMAGE = dict(re.findall(r"\b(OOD_\w+)=(\S+)", DOCKERFILE))
"""The settings that the container image sets, by their environment variables."""
