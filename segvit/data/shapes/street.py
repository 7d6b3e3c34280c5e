"""Draw a toy street scene: sky, water, grass, a road, buildings, trees, cars and signs under one sun.

As in photos, colour alone does not identify a class. Families of colours overlap (sky and water, crowns and meadows,
asphalt and concrete), and the light of the hour shifts them all. Texture, shape and place decide.

    image, labels = Street(seed=7, size=96).draw()
"""

import numpy as np
from numpy.typing import NDArray

from segvit.data.shapes.painter import Canvas, Floats, Shape, ellipse, grid, limb, noise, polygon, rectangle, union

SKY, WATER, GRASS, ROAD, BUILDING, TREE, CAR, SIGN = range(8)
"""Positions of the classes in specs/shapes.yaml."""

COLOURS: dict[int, tuple[tuple[float, float, float], ...]] = {
    SKY: ((0.36, 0.60, 0.94), (0.52, 0.72, 0.95), (0.72, 0.82, 0.92), (0.95, 0.78, 0.64)),
    WATER: ((0.14, 0.34, 0.56), (0.20, 0.44, 0.66), (0.30, 0.55, 0.68), (0.12, 0.42, 0.46)),
    GRASS: ((0.44, 0.64, 0.22), (0.56, 0.70, 0.28), (0.76, 0.72, 0.40), (0.28, 0.52, 0.20)),
    ROAD: ((0.34, 0.34, 0.38), (0.44, 0.43, 0.46), (0.58, 0.55, 0.53)),
    BUILDING: ((0.72, 0.36, 0.28), (0.90, 0.74, 0.52), (0.62, 0.60, 0.60), (0.52, 0.62, 0.72), (0.92, 0.88, 0.80)),
    TREE: ((0.10, 0.34, 0.16), (0.20, 0.46, 0.16), (0.36, 0.54, 0.16), (0.78, 0.46, 0.14)),
    CAR: ((0.82, 0.14, 0.14), (0.16, 0.36, 0.74), (0.92, 0.92, 0.90), (0.48, 0.50, 0.54), (0.16, 0.54, 0.46)),
    SIGN: ((0.86, 0.12, 0.16), (0.10, 0.30, 0.78), (0.98, 0.82, 0.14), (0.98, 0.60, 0.10)),
}
"""Anchors of each class's family of colours: red, green and blue in 0..1 under white light."""
LIGHTS = ((1.06, 1.04, 1.00), (1.16, 0.98, 0.78), (0.92, 0.95, 0.98), (0.84, 0.80, 0.98))
"""The light of noon, evening, a grey day and dusk."""
DARK = np.array((0.10, 0.11, 0.14), dtype=np.float32)
GLASS = np.array((0.32, 0.44, 0.56), dtype=np.float32)
LAMPLIGHT = np.array((1.00, 0.88, 0.54), dtype=np.float32)
WOOD = np.array((0.36, 0.25, 0.17), dtype=np.float32)
STEEL = np.array((0.22, 0.22, 0.26), dtype=np.float32)
WHITE = np.array((0.95, 0.95, 0.92), dtype=np.float32)


class Street:
    """One scene in progress: its canvas, its random numbers, and the facts that all its objects share."""

    def __init__(self, seed: int, size: int) -> None:
        self.random = np.random.Generator(np.random.PCG64(seed))
        self.canvas = Canvas(size)
        self.size = size
        self.horizon = self.between(0.36, 0.52)
        self.sun = self.between(0.4, 1.0) * (1 if self.chance(0.5) else -1)  # from the right (1) or from the left (-1)
        self.haze = self.colour(SKY)
        self.broad = noise(self.random, size, 4, 4)
        self.leaves = noise(self.random, size, 26, 26)
        self.grain = noise(self.random, size, 60, 60)
        self.ripples = noise(self.random, size, 7, 36)

    def draw(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw everything, far things first: image (S, S, 3) and labels (S, S), where 255 is ignored."""
        self.sky()
        self.meadow()
        if self.chance(0.75):
            self.water()
        self.buildings()
        self.road()
        self.things()
        return self.photograph(), self.canvas.labels

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return float(self.random.random()) < probability

    def between(self, low: float, high: float) -> float:
        """Draw a uniform number in low..high."""
        return low + (high - low) * float(self.random.random())

    def colour(self, family: int) -> Floats:
        """Draw a colour (3,) of a class's family: an anchor mixed with up to half of another, plus noise."""
        anchors, (first, second, mix, *change) = COLOURS[family], self.random.random(6).tolist()
        one, other = anchors[int(first * len(anchors))], anchors[int(second * len(anchors))]
        return np.array(
            [a + (b - a) * mix * 0.5 + (c - 0.5) * 0.08 for a, b, c in zip(one, other, change, strict=True)], np.float32
        )

    def hazy(self, colour: Floats, depth: float) -> Floats:
        """Return the colour as seen from afar: depth 0 is at the horizon, 1 in front."""
        return colour + (self.haze - colour) * np.float32(0.3 * (1 - depth))

    def depth(self, y: float) -> float:
        """Return the nearness of a point on the ground: 0 at the horizon, 1 at the bottom of the picture."""
        return (y - self.horizon) / (1 - self.horizon)

    def lit(self, x0: float, x1: float, strength: float = 0.2) -> Floats:
        """Return the shade (1, S) of a body from x0 to x1, which is brighter on the side of the sun."""
        across = (self.canvas.x - (x0 + x1) / 2) * (2 / (x1 - x0))
        shade: Floats = 1 + np.clip(across, -1, 1) * (self.sun * strength)
        return shade

    def shadow(self, x: float, y: float, half_width: float) -> None:
        """Darken the ground at the foot of an object, away from the sun."""
        shape = ellipse(x - self.sun * half_width * 0.7, y, half_width * 1.3, half_width * 0.3 + 0.006)
        self.canvas.paint(shape, DARK, opacity=0.35)

    def sky(self) -> None:
        """Paint the sky from the zenith's colour down to the haze on the horizon, with clouds."""
        canvas, top = self.canvas, self.colour(SKY)
        image = top[:, None, None] + (self.haze - top)[:, None, None] * np.minimum(canvas.y / self.horizon, 1)
        puffs = self.broad * 2 + noise(self.random, self.size, 7, 14)
        clouds = np.clip(puffs - self.between(-0.2, 1.0), 0, 1) * self.between(0.4, 0.9)
        canvas.image[:] = image + (WHITE[:, None, None] - image) * clouds
        canvas.labels[:] = SKY

    def meadow(self) -> None:
        """Paint grass from a wavy horizon to the bottom, in patches that fade into the haze."""
        canvas, colour, other = self.canvas, self.colour(GRASS)[:, None, None], self.colour(GRASS)[:, None, None]
        ridge = self.horizon - 0.01 + noise(self.random, self.size, 3, 1)[:1] * self.between(0, 0.04)
        nearness = np.clip((canvas.y - self.horizon) * 2.5, 0, 1)
        field = colour + (other - colour) * np.clip(self.broad * 0.8 + 0.5, 0, 1)
        field *= 1 + (self.grain * 0.16 + self.leaves * 0.10) * nearness
        field += (self.haze[:, None, None] - field) * (0.4 * (1 - nearness))
        shape = Shape(box=(0, self.horizon - 0.06, 1, 1), distance=lambda x, y: ridge - y)
        canvas.paint(shape, field, label=GRASS)

    def water(self) -> None:
        """Paint a lake below the horizon, or one that reaches into the foreground."""
        half = self.between(0.06, 0.12)
        y = self.horizon + half + 0.01 if self.chance(0.6) else self.between(0.85, 1.0)
        shape = ellipse(self.between(0, 1), y, self.between(0.4, 0.8), half)
        base = self.colour(WATER)
        base = base + (self.haze - base) * np.float32(self.between(0, 0.35))
        self.canvas.paint(shape, base, label=WATER, shade=1 + self.ripples * 0.22)

    def buildings(self) -> None:
        """Paint a row of houses and towers behind the road."""
        x = self.between(-0.1, 0.5)
        for _ in range(int(self.random.integers(1, 5))):
            width = self.between(0.18, 0.34)
            self.building(x, x + width, self.horizon + self.between(0.03, 0.10))
            x += width + self.between(-0.02, 0.14)

    def building(self, x0: float, x1: float, base: float) -> None:
        """Paint a tower, or a house with a roof, with a dark side and windows."""
        canvas, wall, is_tower = self.canvas, self.hazy(self.colour(BUILDING), 0.7), self.chance(0.55)
        top = base - (self.between(0.26, 0.48) if is_tower else self.between(0.14, 0.24))
        shade = self.lit(x0, x1, 0.1) + self.grain * 0.06
        if not is_tower:
            low, ridge = top + 0.01, top - self.between(0.08, 0.14)
            eaves = polygon((x0 - 0.02, low), ((x0 + x1) / 2, ridge), (x1 + 0.02, low))
            canvas.paint(eaves, self.colour(BUILDING) * np.float32(0.75), label=BUILDING, shade=shade)
        canvas.paint(rectangle(x0, top, x1, base), wall, label=BUILDING, shade=shade)
        side = (x1 - x0) * 0.25
        left, right = (x1 - side, x1) if self.sun < 0 else (x0, x0 + side)
        canvas.paint(rectangle(left, top, right, base), DARK, opacity=0.28)
        columns, rows = int(self.random.integers(2, 5)), max(1, round((base - top) / self.between(0.07, 0.10)))
        panes = grid((x0 + 0.015, top + 0.015, x1 - 0.015, base - 0.02), columns, rows, self.between(0.45, 0.65))
        canvas.paint(panes, self.hazy(GLASS if self.chance(0.7) else LAMPLIGHT, 0.7))

    def road(self) -> None:
        """Paint a road into the picture or across it, with a broken line in the middle."""
        if self.chance(0.5):
            half, y, tilt = self.between(0.10, 0.14), self.horizon + self.between(0.2, 0.4), self.between(-0.06, 0.06)
            self.lane = (-0.05, y - tilt, half), (1.05, y + tilt, half)
        else:
            near, top = self.between(0.25, 0.75), self.horizon + 0.03
            self.lane = (self.between(0.25, 0.75), top, 0.02), (near, 1.05, self.between(0.24, 0.40))
        (px, py, p), (qx, qy, q) = self.lane
        if p == q:
            shape = polygon((px, py + p), (px, py - p), (qx, qy - q), (qx, qy + q))
        else:
            shape = polygon((qx - q, qy), (px - p, py), (px + p, py), (qx + q, qy))
        colour = self.hazy(self.colour(ROAD), 0.8)
        self.canvas.paint(shape, colour, label=ROAD, shade=1 + self.grain * 0.08 + self.broad * 0.10)
        for first in (0.06, 0.16, 0.34, 0.60, 0.85):
            last = first + (0.1 if p == q else 0.05 + 0.12 * first)
            ends = [(px + (qx - px) * t, py + (qy - py) * t) for t in (first, last)]
            widths = [0.004 + 0.03 * (p + (q - p) * t) for t in (first, last)]
            self.canvas.paint(limb(ends[0], ends[1], *widths), WHITE, opacity=0.8)

    def things(self) -> None:
        """Paint trees, cars and signs, far ones first."""
        places: list[tuple[float, float, int]] = []
        for _ in range(int(self.random.integers(1, 4))):
            places.append((self.horizon + self.between(0.05, 0.5), self.between(0, 1), TREE))
        (px, py, p), (qx, qy, q) = self.lane
        start = self.between(0.1, 0.4) if p == q else self.between(0.4, 0.6)
        for along in np.arange(start, 0.95, self.between(0.3, 0.5)):
            half = p + (q - p) * float(along)
            side = half * (0.45 if self.chance(0.5) else -0.45)
            x, y = px + (qx - px) * float(along), py + (qy - py) * float(along)
            places.append((y + side + 0.04, x, CAR) if p == q else (y, x + side, CAR))
        for _ in range(int(self.random.integers(1, 3))):
            places.append((self.horizon + self.between(0.15, 0.5), self.between(0.08, 0.92), SIGN))
        draw = {TREE: self.tree, CAR: self.car, SIGN: self.sign}
        for y, x, kind in sorted(places):
            draw[kind](x, y, 0.65 + 0.6 * self.depth(y))

    def tree(self, x: float, y: float, scale: float) -> None:
        """Paint a trunk with two branches under a round or a pointed crown."""
        height, radius = self.between(0.24, 0.34) * scale, self.between(0.10, 0.13) * scale
        middle, lean = y - height, self.between(-0.02, 0.02)
        self.shadow(x, y, radius)
        wood = [limb((x, y), (x + lean, middle), 0.020 * scale, 0.012 * scale)]
        for end in (x - radius * 0.9, x + radius * 0.9):
            wood.append(limb((x, y - height * 0.45), (end, middle + radius * 0.4), 0.010 * scale, 0.006 * scale))
        self.canvas.paint(union(*wood), WOOD, label=TREE, shade=self.lit(x - 0.02, x + 0.02))
        if self.chance(0.3):
            tiers = ((1.0, 0.9), (0.8, 0.1), (0.55, -0.7))
            parts = [
                polygon((x - r, middle + d), (x + lean, middle + d - r * 1.5), (x + r, middle + d))
                for r, d in ((radius * a, radius * b) for a, b in tiers)
            ]
        else:
            parts = [ellipse(x + lean, middle, radius, radius)]
            for _ in range(4):
                r = radius * self.between(0.5, 0.7)
                cx, cy = x + lean + radius * self.between(-0.75, 0.75), middle + radius * self.between(-0.9, 0.5)
                parts.append(ellipse(cx, cy, r, r))
        shade = self.lit(x - radius, x + radius, 0.25) + self.leaves * 0.26 + self.grain * 0.12
        self.canvas.paint(union(*parts), self.hazy(self.colour(TREE), self.depth(y)), label=TREE, shade=shade)

    def car(self, x: float, y: float, scale: float) -> None:
        """Paint a body, a cabin with panes, and wheels: from the side if the road runs across, else from behind."""
        across = self.lane[0][2] == self.lane[1][2]
        half, unit = (0.15 if across else 0.105) * scale, 0.085 * scale
        shift = (0.1 if self.chance(0.5) else -0.1) if across else 0.0

        def cabin(foot: float, top: float, base: float, height: float) -> Shape:
            corners = ((-foot, base), (-top - shift, height), (top - shift, height), (foot, base))
            return polygon(*((x + half * u, y - unit * v) for u, v in corners))

        body = rectangle(x - half, y - unit * 1.3, x + half, y - unit * 0.25)
        colour = self.hazy(self.colour(CAR), 0.3 + 0.7 * self.depth(y))
        self.shadow(x, y, half)
        whole, shade = union(body, cabin(0.78, 0.45, 1.25, 2.2)), self.lit(x - half, x + half)
        self.canvas.paint(whole, colour, label=CAR, shade=shade)
        self.canvas.paint(cabin(0.62, 0.36, 1.3, 2.0), GLASS)
        for u in (-0.6, 0.6):
            wheel = ellipse(x + half * u, y - unit * 0.3, unit * 0.42, unit * 0.42)
            self.canvas.paint(wheel, DARK, label=CAR)

    def sign(self, x: float, y: float, scale: float) -> None:
        """Paint a plate in two colours, round, square or pointed, on a thin pole."""
        radius, thin = self.between(0.085, 0.105) * scale, 0.020 * scale
        top = y - self.between(0.30, 0.40) * scale
        self.shadow(x, y, 0.04)
        self.canvas.paint(rectangle(x - thin, top, x + thin, y), STEEL, label=SIGN)
        kind = int(self.random.integers(3))
        for r, label in ((radius, SIGN), (radius * 0.6, None)):
            plate = (
                ellipse(x, top, r, r),
                rectangle(x - r * 0.9, top - r * 0.9, x + r * 0.9, top + r * 0.9),
                polygon((x - r * 1.1, top + r * 0.7), (x, top - r * 1.1), (x + r * 1.1, top + r * 0.7)),
            )[kind]
            self.canvas.paint(plate, self.colour(SIGN) if label else WHITE, label=label)

    def photograph(self) -> NDArray[np.uint8]:
        """Return the image (S, S, 3) as a camera takes it, in the light of the hour.

        It is darker to one side and in the corners, and has noise.
        """
        hours = self.random.random(len(LIGHTS), dtype=np.float32)
        hours = hours * hours * hours  # so that one of them dominates
        light = (hours[:, None] * np.array(LIGHTS, dtype=np.float32)).sum(axis=0) / hours.sum()
        dx, dy = self.canvas.x - 0.5, self.canvas.y - 0.5
        sideways, corners = 1 + dx * (self.sun * 0.2), 1 - (dx * dx + dy * dy) * self.between(0.1, 0.5)
        grain = self.random.random((3, self.size, self.size), dtype=np.float32) - np.float32(0.5)
        exposure = sideways * corners * self.between(0.94, 1.16)
        return self.canvas.photograph(light, exposure, grain * self.between(0.03, 0.10))
