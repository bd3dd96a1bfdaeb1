"""What preflight finds out about seals: whether models can be served at level E4, and how they could.

Owns this judgement. It writes nothing, and turns no feature of a file system on.

Rules:
- a host without seals is fit: its models are served at a lower level;
- where the site demands level E4 for a model, a host without seals is a problem.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from appliance.host.layout.prefix import Prefix
from appliance.host.models.levels import E2, E4
from appliance.host.models.seal import seal_ability, seal_remedy
from appliance.host.preflight.finding import HostFinding, problem
from appliance.host.site.config import SiteConfig


def seal_finding(prefix: Prefix, site: SiteConfig, models: Iterable[str]) -> HostFinding:
    """Whether the models of a host can be sealed.

    Args:
        prefix: the host; its folders need not exist.
        site: its configuration.
        models: names of those that are to be served; a site may know others.

    Returns:
        A problem where the site demands level E4 for one of them, and no file can be sealed here.
    """
    found = seal_ability(_nearest(prefix.models))
    asked = sorted(name for name in models if name in site.models and site.models[name].min_level == E4)
    required = f"fs-verity for level {E4} of {', '.join(asked)}" if asked else f"fs-verity, for level {E4}"
    if found.is_sealed:
        return HostFinding("seals", required, f"fs-verity on {found.detail}")
    measured = f"{found.detail or found.outcome}; level {E2} where the memory suffices"
    if asked:
        return problem("seals", required, measured, seal_remedy(found), "model.level")
    return HostFinding("seals", f"{required}; not needed", measured, seal_remedy(found))


def _nearest(path: Path) -> Path:
    while not path.is_dir() and path.parent != path:
        path = path.parent
    return path
