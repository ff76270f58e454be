"""The deployment files that several tests compare with each other."""

import re

from tests.system.support.service_process import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.30", "1.33", "1.37")
"""The Kubernetes versions whose schemas validate the objects."""
DEPLOY_PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
IMAGE_SETTINGS = dict(re.findall(r"\b(OOD_\w+)=(\S+)", DOCKERFILE))
"""The settings in the container image, by their environment variables."""
