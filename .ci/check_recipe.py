"""Render the conda recipe with rattler-build, which refuses unknown keys and wrong values.

    pip install py-rattler-build
    python .ci/check_recipe.py

It reads the recipe and builds nothing, so it needs no conda channel.
"""

import os
import sys
from pathlib import Path

from check_release import ROOT, project_version

RECIPE = ROOT / "deploy" / "conda" / "recipe.yaml"


def rendered(recipe: Path, version: str) -> str:
    """Return name and version of the package that a recipe builds.

    Raises:
        rattler_build.RattlerBuildError: the recipe is not valid.
    """
    import rattler_build

    os.environ["SEGVIT_VERSION"] = version
    (variant,) = rattler_build.Stage0Recipe.from_file(recipe).render(rattler_build.VariantConfig())
    package = variant.recipe.package
    return f"{package.name} {package.version}"


if __name__ == "__main__":
    expected = f"segvit {project_version((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))}"
    found = rendered(RECIPE, expected.split()[1])
    sys.exit(f"{RECIPE} builds {found}, not {expected}" if found != expected else print(f"{RECIPE.name}: {found}"))
