"""Backbones that a mistyped name may mean, plain ViTs alone: `vit_small`, `facebook/dinov2-small`, `ViT-B/16`.

likely("vit_small")  # ["vit_small_patch14_dinov2", "vit_small_patch16_224", "vit_small_patch16_dinov3"]
"""

import re

import timm

from segvit.utils.text import nearest

MODULES = ("vision_transformer", "deit", "eva", "beit")
"""timm's modules whose models are all plain ViTs."""
SIZES = {"t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"}
WIDELY_USED = ("patch14_dinov2", "patch16_224", "patch16_dinov3", "patch16_384")
"""Ends of the names that come first among equals."""
USUAL_SIZES = ("small", "base", "large", "tiny")
"""Sizes in the order in which they are offered."""
MISSPELLED = 0.85
"""Least similarity in 0..1 of a misspelled name, or of a part of one."""


def likely(name: str, *, most: int = 3) -> list[str]:
    """Return up to `most` plain ViTs that a name may mean, likeliest first."""
    plain = [each for module in MODULES for each in timm.list_models(module=module)]
    if close := nearest(name, plain, most=most, cutoff=MISSPELLED):
        return close
    vocabulary = {part for each in plain for part in _parts(each)}
    typed = {(nearest(part, vocabulary, cutoff=MISSPELLED) or [part])[0] for part in _parts(name)}
    if not typed & vocabulary - {"vit"}:
        return nearest(name, plain, most=most)
    scores = {each: len(typed & _parts(each)) for each in plain}
    found = [each for each, score in scores.items() if score == max(scores.values())]
    return sorted(found, key=lambda each: (len(_parts(each) - typed), *_ranks(each), each))[:most]


def _parts(name: str) -> set[str]:
    """Return the parts of a name as timm spells them: "dinov2_vits14" gives dinov2, vit, small, patch14."""
    found = set()
    for part in re.split(r"[^a-z0-9]+", name.lower()):
        if match := re.fullmatch(rf"vit({'|'.join([*SIZES, *SIZES.values()])})(\d*)", part):
            found |= {"vit", SIZES.get(match[1], match[1]), f"patch{match[2]}"}
        elif part in ("8", "14", "16", "32"):
            found.add(f"patch{part}")
        else:
            found.add(SIZES.get(part, part))
    return found - {"", "patch"}


def _ranks(name: str) -> tuple[int, int]:
    """Return the places of the end of a name and of its size among those widely used."""
    end = next((place for place, end in enumerate(WIDELY_USED) if name.endswith(end)), len(WIDELY_USED))
    return end, next((place for place, size in enumerate(USUAL_SIZES) if size in name), len(USUAL_SIZES))
