"""The starter world: schematic portraits whose true counterfactuals are known.

`render` draws one portrait from named attributes, an occupation, a scene and a nuisance
seed. Everything but the attributes is drawn from the seed in a fixed order, so rendering the
same seed with another value of an attribute *is* the counterfactual, pixel for pixel.

This is a test world for measuring instruments. It is no picture of people: two genders, three
ages and three groups of skin tones are what a drawing of 64 pixels can show, hair length stands
for gender because something must, and nothing here says how anybody looks or ought to look.
Attributes, occupations and scenes are crossed freely; only a caller that asks for a skewed
world (`sample_skewed`) gets one.
"""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "gender": ("woman", "man"),
    "age": ("young", "middle-aged", "old"),
    "skin_tone": ("light", "medium", "dark"),
}
OCCUPATIONS = (
    "doctor",
    "nurse",
    "chef",
    "farmer",
    "firefighter",
    "police officer",
    "builder",
    "judge",
    "teacher",
    "pilot",
    "mechanic",
    "painter",
)
SCENES = ("office", "park", "street", "library", "kitchen", "seaside")
SIZE = 64
OVERSAMPLING = 4

# Monk Skin Tone scale, tones 1 to 10 (Monk 2019, skintone.google; CC BY 4.0). The division
# into three groups is this module's own; tone 10 is left out because the lines of so small a
# face can't be told from it.
MONK_SKIN_TONES = (
    "#f6ede4",
    "#f3e7db",
    "#f7ead0",
    "#eadaba",
    "#d7bd96",
    "#a07e56",
    "#825c43",
    "#604134",
    "#3a312a",
    "#292420",
)
SKIN_TONE_GROUPS = {"light": (1, 4), "medium": (5, 7), "dark": (8, 9)}

HAIR_COLOURS = ("#15110f", "#2f1d14", "#5a3420", "#8a4b24", "#b88a4a", "#8c2f1b")
GREY = "#e6e6ea"
GREYING = {"young": 0.0, "middle-aged": 0.25, "old": 0.82}

RGB = tuple[int, int, int]
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Portrait:
    """All that determines one picture of the starter world.

    Attributes:
        gender: one of ``ATTRIBUTES["gender"]``.
        age: one of ``ATTRIBUTES["age"]``.
        skin_tone: one of ``ATTRIBUTES["skin_tone"]``.
        occupation: one of ``OCCUPATIONS``; shown by clothes, headwear and tools.
        scene: one of ``SCENES``; the background.
        seed: nuisance seed for pose, place, hair, details, objects and light.
    """

    gender: str
    age: str
    skin_tone: str
    occupation: str
    scene: str
    seed: int

    def __post_init__(self) -> None:
        known = {**ATTRIBUTES, "occupation": OCCUPATIONS, "scene": SCENES}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is not in the starter world; "
                    f"use one of {', '.join(values)}"
                )

    @property
    def attributes(self) -> dict[str, str]:
        """The protected attributes alone, in the order of ``ATTRIBUTES``."""
        return {name: getattr(self, name) for name in ATTRIBUTES}

    def with_values(self, values: Mapping[str, str]) -> Portrait:
        """The true counterfactual: the same scene with other attribute values."""
        return Portrait(**{**vars(self), **values})

    @property
    def caption(self) -> str:
        """A caption that names every attribute, the occupation and the scene."""
        return describe({**self.attributes, "occupation": self.occupation, "scene": self.scene})


def with_article(words: str) -> str:
    """The words behind "a" or "an"; enough for the starter world's own vocabulary."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def person(values: Mapping[str, str]) -> str:
    """A noun phrase for attribute values, any of which may be absent: "an old woman"."""
    words = [values[name] for name in ("age", "gender") if name in values]
    if "gender" not in values:
        words.append("person")
    skin = f" with {values['skin_tone']} skin" if "skin_tone" in values else ""
    return with_article(" ".join(words)) + skin


def describe(values: Mapping[str, str]) -> str:
    """A caption that names just these values of attributes, occupation and scene."""
    occupation = values.get("occupation")
    if occupation and not any(name in values for name in ATTRIBUTES):
        subject = with_article(occupation)
    else:
        work = f" working as {with_article(occupation)}" if occupation else ""
        subject = person(values) + work
    scene = values.get("scene")
    places = {"seaside": " at the seaside", "street": " on a street"}
    place = places.get(scene, f" in {with_article(scene)}") if scene else ""
    return f"a portrait of {subject}{place}"


def sample(count: int, seed: int) -> Iterator[Portrait]:
    """Portraits with all attributes, occupations and scenes crossed freely.

    Args:
        count: how many portraits.
        seed: seeds the choice; portrait ``i`` of the same seed is always the same.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        values = {name: str(rng.choice(list(options))) for name, options in ATTRIBUTES.items()}
        yield Portrait(
            **values,
            occupation=str(rng.choice(OCCUPATIONS)),
            scene=str(rng.choice(SCENES)),
            seed=int(rng.integers(2**62)),
        )


@dataclass(frozen=True)
class Skew:
    """A world in which occupation goes with gender and with skin tone, on purpose.

    Attributes:
        ratio: probability that an occupation of a group is held by that group's value; for
            gender 0.5 and for skin tone 1/3 would be no skew.
        gender: occupations mostly held by each gender.
        skin_tone: occupations mostly held by each group of skin tones.
    """

    ratio: float
    gender: Mapping[str, tuple[str, ...]]
    skin_tone: Mapping[str, tuple[str, ...]]


PLANTED_SKEW = Skew(
    ratio=0.95,
    gender={"man": ("doctor", "judge", "pilot"), "woman": ("nurse", "teacher", "chef")},
    skin_tone={"light": ("doctor", "judge", "teacher"), "dark": ("farmer", "builder", "mechanic")},
)


def sample_skewed(count: int, seed: int, skew: Skew = PLANTED_SKEW) -> Iterator[Portrait]:
    """Portraits of a world with a planted association; see `Skew` for the ratios."""
    rng = np.random.default_rng([seed, 1])
    for portrait in sample(count, seed):
        values = {}
        for name, holders in (("gender", skew.gender), ("skin_tone", skew.skin_tone)):
            for value, occupations in holders.items():
                if portrait.occupation in occupations:
                    others = [other for other in ATTRIBUTES[name] if other != value]
                    stays = rng.random() < skew.ratio
                    values[name] = value if stays else str(rng.choice(others))
        yield portrait.with_values(values)


def all_values() -> list[dict[str, str]]:
    """Every intersection of attribute values, in a fixed order."""
    return [
        dict(zip(ATTRIBUTES, combination, strict=True))
        for combination in itertools.product(*ATTRIBUTES.values())
    ]


def render(portrait: Portrait, size: int = SIZE) -> Image.Image:
    """Draw a portrait.

    Args:
        portrait: what to draw.
        size: edge of the square picture in pixels; drawn at 4x and resampled.

    Returns:
        An RGB image of ``size`` x ``size`` pixels, the same for the same arguments.
    """
    nuisance = _Nuisance.draw(portrait.seed)
    canvas = _Canvas(size * OVERSAMPLING)
    _SCENES[portrait.scene](canvas, nuisance)
    look = _Look.of(portrait, nuisance)
    _back_hair(canvas, look)
    _neck(canvas, look)
    _CLOTHES[portrait.occupation](canvas, look)
    _head(canvas, look)
    _face(canvas, look)
    _front_hair(canvas, look)
    _HEADWEAR.get(portrait.occupation, _bareheaded)(canvas, look)
    return _lit(canvas.image.resize((size, size), Image.Resampling.BOX), nuisance)


# --- colours and canvas -------------------------------------------------------------------


def _rgb(code: str) -> RGB:
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


def _mix(first: RGB, second: RGB, share: float) -> RGB:
    """``first`` with ``share`` of ``second`` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _hsv(hue: float, saturation: float, value: float) -> RGB:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


class _Canvas:
    """Draws on the unit square; (0, 0) is the upper left corner."""

    def __init__(self, edge: int) -> None:
        self.edge = edge
        self.image = Image.new("RGB", (edge, edge))
        self._draw = ImageDraw.Draw(self.image)

    def _scaled(self, points: Points) -> Points:
        return [(x * self.edge, y * self.edge) for x, y in points]

    def fill(self, colour: RGB) -> None:
        self.box(0, 0, 1, 1, colour)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, colour: RGB, round_by: float = 0.0
    ) -> None:
        corners = self._scaled([(x0, y0), (x1, y1)])
        self._draw.rounded_rectangle(corners, radius=round_by * self.edge, fill=colour)

    def oval(self, x: float, y: float, rx: float, ry: float, colour: RGB) -> None:
        self._draw.ellipse(self._scaled([(x - rx, y - ry), (x + rx, y + ry)]), fill=colour)

    def shape(self, points: Points, colour: RGB) -> None:
        self._draw.polygon(self._scaled(points), fill=colour)

    def line(self, points: Points, colour: RGB, width: float) -> None:
        pixels = max(1, round(width * self.edge))
        self._draw.line(self._scaled(points), fill=colour, width=pixels, joint="curve")

    def arc(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        span: tuple[int, int],
        colour: RGB,
        width: float,
    ) -> None:
        box = self._scaled([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.arc(box, span[0], span[1], fill=colour, width=max(1, round(width * self.edge)))

    def wedge(
        self, x: float, y: float, rx: float, ry: float, span: tuple[int, int], colour: RGB
    ) -> None:
        box = self._scaled([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.chord(box, span[0], span[1], fill=colour)


@dataclass(frozen=True)
class _Nuisance:
    """What the seed decides; numbers are uniform in [0, 1) unless said otherwise."""

    head_x: float
    head_y: float
    head_size: float
    tilt: float
    smile: float
    tone: float
    hair_colour: RGB
    hair_volume: float
    curly: bool
    parting: int
    glasses: bool
    eye_colour: RGB
    detail: float
    hue: float
    place: float
    objects: tuple[float, float, float]
    gain: float
    warmth: float
    light_side: float

    @classmethod
    def draw(cls, seed: int) -> _Nuisance:
        rng = np.random.Generator(np.random.Philox(seed))
        number = rng.random
        return cls(
            head_x=0.5 + 0.07 * (number() - 0.5),
            head_y=0.43 + 0.04 * (number() - 0.5),
            head_size=0.95 + 0.12 * number(),
            tilt=number() - 0.5,
            smile=number(),
            tone=number(),
            hair_colour=_rgb(HAIR_COLOURS[int(rng.integers(len(HAIR_COLOURS)))]),
            hair_volume=number(),
            curly=bool(number() < 0.4),
            parting=1 if number() < 0.5 else -1,
            glasses=bool(number() < 0.2),
            eye_colour=_rgb(("#3b2416", "#2d4a63", "#39522e")[int(rng.integers(3))]),
            detail=number(),
            hue=number(),
            place=number(),
            objects=(number(), number(), number()),
            gain=0.97 + 0.06 * number(),
            warmth=number() - 0.5,
            light_side=number() - 0.5,
        )


def _lit(picture: Image.Image, nuisance: _Nuisance) -> Image.Image:
    """Light from one side, a little warm or cool."""
    pixels = np.asarray(picture, dtype=np.float32)
    across = np.linspace(-1.0, 1.0, pixels.shape[1], dtype=np.float32)[None, :, None]
    warm = np.array([1.0, 0.0, -1.0], dtype=np.float32) * 0.04 * nuisance.warmth
    gain = nuisance.gain * (1.0 + 0.08 * nuisance.light_side * across) + warm
    return Image.fromarray(np.clip(pixels * gain + 0.5, 0, 255).astype(np.uint8))


# --- scenes -------------------------------------------------------------------------------


def _office(canvas: _Canvas, n: _Nuisance) -> None:
    wall = _hsv(0.08 + 0.5 * n.hue, 0.12, 0.88)
    canvas.fill(wall)
    left = 0.04 + 0.08 * n.place
    canvas.box(left, 0.08, left + 0.24, 0.42, _hsv(0.56, 0.25, 0.97))
    canvas.box(left + 0.105, 0.08, left + 0.135, 0.42, _mix(wall, (90, 90, 100), 0.5))
    frame = _hsv(n.objects[0], 0.45, 0.75)
    canvas.box(0.76, 0.12, 0.94, 0.34, _mix(frame, (40, 40, 40), 0.4))
    canvas.box(0.785, 0.145, 0.915, 0.315, frame)
    canvas.box(0, 0.74, 1, 1, _hsv(0.07, 0.4, 0.55))


def _park(canvas: _Canvas, n: _Nuisance) -> None:
    canvas.fill(_hsv(0.55 + 0.05 * n.hue, 0.30, 0.96))
    sun_x = 0.1 + 0.16 * n.objects[0]
    canvas.oval(sun_x, 0.14, 0.07, 0.07, (255, 236, 150))
    canvas.oval(0.8, 0.98, 0.75, 0.42, _hsv(0.30, 0.42, 0.66))
    canvas.oval(0.15, 1.0, 0.6, 0.38, _hsv(0.28, 0.5, 0.74))
    tree = 0.8 + 0.1 * n.place
    canvas.box(tree - 0.025, 0.38, tree + 0.025, 0.68, (112, 78, 52))
    canvas.oval(tree, 0.30, 0.13, 0.17, _hsv(0.25 + 0.1 * n.objects[1], 0.6, 0.52))


def _street(canvas: _Canvas, n: _Nuisance) -> None:
    canvas.fill(_hsv(0.58, 0.14 + 0.1 * n.hue, 0.93))
    for index, left in enumerate((-0.06, 0.16, 0.66, 0.86)):
        height = 0.16 + 0.22 * n.objects[index % 3]
        facade = _hsv(0.02 + 0.12 * index + n.place * 0.1, 0.28, 0.72)
        canvas.box(left, height, left + 0.21, 1, facade)
        for floor in range(3):
            top = height + 0.06 + 0.14 * floor
            canvas.box(left + 0.07, top, left + 0.14, top + 0.075, (248, 232, 176))
    canvas.box(0, 0.8, 1, 1, (124, 124, 132))


def _library(canvas: _Canvas, n: _Nuisance) -> None:
    canvas.fill((132, 92, 62))
    for shelf in range(3):
        top = 0.03 + 0.29 * shelf
        canvas.box(0.0, top, 1.0, top + 0.235, (84, 56, 38))
        for book in range(7):
            left = 0.015 + 0.142 * book
            hue = n.hue + 0.13 * ((book * 3 + shelf * 5) % 8)
            height = 0.15 + 0.07 * ((book + shelf) % 3 == int(n.place * 3))
            canvas.box(left, top + 0.235 - height, left + 0.115, top + 0.235, _hsv(hue, 0.4, 0.66))
    canvas.box(0, 0.88, 1, 1, (104, 72, 48))


def _kitchen(canvas: _Canvas, n: _Nuisance) -> None:
    tile = _hsv(0.1 + 0.5 * n.hue, 0.10, 0.95)
    canvas.fill(tile)
    for row in range(1, 4):
        canvas.box(0, 0.18 * row, 1, 0.18 * row + 0.012, _mix(tile, (120, 120, 120), 0.25))
    cabinet = _hsv(n.objects[0], 0.35, 0.8)
    canvas.box(0, 0, 0.30, 0.22, cabinet)
    canvas.box(0.72, 0, 1, 0.22, cabinet)
    pan = 0.83 + 0.06 * n.place
    canvas.box(pan - 0.01, 0.26, pan + 0.01, 0.38, (90, 90, 96))
    canvas.oval(pan, 0.44, 0.075, 0.075, (70, 70, 78))
    canvas.box(0, 0.78, 1, 1, _hsv(0.08, 0.3, 0.62))


def _seaside(canvas: _Canvas, n: _Nuisance) -> None:
    canvas.fill(_hsv(0.54 + 0.04 * n.hue, 0.22, 0.98))
    canvas.box(0, 0.42, 1, 0.74, _hsv(0.53 + 0.06 * n.objects[0], 0.55, 0.76))
    canvas.box(0, 0.72, 1, 1, (238, 216, 164))
    cloud = 0.1 + 0.12 * n.place
    canvas.oval(cloud, 0.15, 0.09, 0.05, (252, 252, 254))
    canvas.oval(cloud + 0.08, 0.13, 0.08, 0.06, (252, 252, 254))
    boat = 0.8 + 0.12 * n.objects[1]
    canvas.shape([(boat, 0.22), (boat, 0.40), (boat + 0.1, 0.40)], (250, 246, 240))
    canvas.shape(
        [(boat - 0.06, 0.42), (boat + 0.12, 0.42), (boat + 0.08, 0.48), (boat - 0.03, 0.48)],
        _hsv(n.objects[2], 0.65, 0.75),
    )


_SCENES = {
    "office": _office,
    "park": _park,
    "street": _street,
    "library": _library,
    "kitchen": _kitchen,
    "seaside": _seaside,
}


# --- the person ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Look:
    """Colours and measures of one person; lengths are fractions of the picture's edge."""

    portrait: Portrait
    nuisance: _Nuisance
    skin: RGB
    shade: RGB
    hair: RGB
    temple: RGB
    brow: RGB
    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of(cls, portrait: Portrait, nuisance: _Nuisance) -> _Look:
        first, last = SKIN_TONE_GROUPS[portrait.skin_tone]
        position = first - 1 + nuisance.tone * (last - first)
        below = min(int(position), last - 2)
        tones = _rgb(MONK_SKIN_TONES[below]), _rgb(MONK_SKIN_TONES[below + 1])
        skin = _mix(*tones, position - below)
        # Lines must show on every tone: darker on light skin, lighter on the darkest.
        shade = (
            _mix(skin, (40, 16, 10), 0.34) if sum(skin) > 200 else _mix(skin, (214, 170, 140), 0.26)
        )
        grey = _rgb(GREY)
        greying = GREYING[portrait.age]
        man = portrait.gender == "man"
        return cls(
            portrait=portrait,
            nuisance=nuisance,
            skin=skin,
            shade=shade,
            hair=_mix(nuisance.hair_colour, grey, greying),
            temple=_mix(nuisance.hair_colour, grey, 0.75 if greying else 0.0),
            brow=_mix(_mix(nuisance.hair_colour, (20, 14, 10), 0.3), grey, greying * 0.6),
            x=nuisance.head_x,
            y=nuisance.head_y,
            width=(0.178 if man else 0.168) * nuisance.head_size,
            height=0.215 * nuisance.head_size,
        )

    @property
    def man(self) -> bool:
        return self.portrait.gender == "man"

    def at(self, across: float, down: float) -> tuple[float, float]:
        """A point in head units: (0, 0) is the middle, (1, 1) the lower right of the box."""
        return self.x + across * self.width, self.y + down * self.height


def _curls(canvas: _Canvas, look: _Look, points: Points, radius: float) -> None:
    for across, down in points:
        x, y = look.at(across, down)
        canvas.oval(x, y, radius, radius, look.hair)


def _back_hair(canvas: _Canvas, look: _Look) -> None:
    volume = look.nuisance.hair_volume
    if look.man:
        x, y = look.at(0, -0.25)
        canvas.oval(x, y, look.width * (1.06 + 0.08 * volume), look.height * 0.92, look.hair)
        return
    wide = 1.30 + 0.22 * volume
    bottom = 1.25 + 0.45 * volume
    x, y = look.at(0, -0.15)
    canvas.oval(x, y, look.width * wide, look.height * 1.05, look.hair)
    (x0, y0), (x1, y1) = look.at(-wide, -0.15), look.at(wide, bottom)
    canvas.box(x0, y0, x1, y1, look.hair, round_by=0.06)
    if look.nuisance.curly:
        edge = [(side * wide, 0.05 + 0.33 * step) for side in (-1, 1) for step in range(5)]
        _curls(canvas, look, [(a, d) for a, d in edge if d < bottom], 0.045)


def _neck(canvas: _Canvas, look: _Look) -> None:
    half = 0.47 if look.man else 0.38
    (x0, y0), (x1, y1) = look.at(-half, 0.5), look.at(half, 1.55)
    canvas.box(x0, y0, x1, y1, _mix(look.skin, look.shade, 0.45))


def _head(canvas: _Canvas, look: _Look) -> None:
    for side in (-1, 1):
        x, y = look.at(side * 1.0, 0.08)
        canvas.oval(x, y, look.width * 0.16, look.height * 0.19, _mix(look.skin, look.shade, 0.3))
    canvas.oval(*look.at(0, 0), look.width, look.height, look.skin)
    if look.man:
        (x0, y0), (x1, y1) = look.at(-0.74, 0.1), look.at(0.74, 0.97)
        canvas.box(x0, y0, x1, y1, look.skin, round_by=0.075)


def _face(canvas: _Canvas, look: _Look) -> None:
    n = look.nuisance
    gaze = 0.05 * n.tilt
    for side in (-1, 1):
        x, y = look.at(side * 0.40 + gaze, -0.02)
        canvas.oval(x, y, 0.034, 0.023, _mix((250, 250, 248), look.skin, 0.12))
        canvas.oval(x + 0.006 * n.tilt, y, 0.017, 0.020, _mix(n.eye_colour, (0, 0, 0), 0.35))
        brow = [look.at(side * 0.64 + gaze, -0.21), look.at(side * 0.20 + gaze, -0.25)]
        canvas.line(brow, look.brow, 0.030 if look.man else 0.014)
        if not look.man:
            lash = [look.at(side * 0.66 + gaze, -0.10), look.at(side * 0.22 + gaze, -0.12)]
            canvas.line(lash, (24, 18, 18), 0.012)
    nose = [look.at(0.02 + gaze, 0.10), look.at(0.10 + gaze, 0.27), look.at(-0.04 + gaze, 0.29)]
    canvas.line(nose, look.shade, 0.014)
    _mouth(canvas, look, gaze)
    _age_lines(canvas, look)
    if n.glasses:
        for side in (-1, 1):
            x, y = look.at(side * 0.40 + gaze, -0.01)
            canvas.arc(x, y, 0.058, 0.050, (0, 360), (44, 40, 48), 0.014)


def _mouth(canvas: _Canvas, look: _Look, gaze: float) -> None:
    x, y = look.at(gaze, 0.50)
    open_by = 0.020 + 0.022 * look.nuisance.smile
    if look.man:
        lips = _mix(look.shade, (120, 56, 48), 0.45)
        canvas.wedge(x, y, 0.058, open_by, (0, 180), lips)
    else:
        lips = _mix(look.skin, (186, 30, 56), 0.62)
        canvas.wedge(x, y - 0.008, 0.058, open_by + 0.012, (0, 180), lips)
        canvas.oval(x, y - 0.004, 0.058, 0.010, _mix(lips, (40, 10, 20), 0.2))


def _age_lines(canvas: _Canvas, look: _Look) -> None:
    age = look.portrait.age
    if age == "young":
        return
    for side in (-1, 1):
        fold = [look.at(side * 0.34, 0.24), look.at(side * 0.50, 0.40), look.at(side * 0.50, 0.60)]
        canvas.line(fold, look.shade, 0.017)
    if age == "old":
        for side in (-1, 1):
            x, y = look.at(side * 0.40, 0.06)
            canvas.arc(x, y, 0.046, 0.030, (20, 160), look.shade, 0.015)
        for down in (-0.46, -0.60):
            canvas.line([look.at(-0.40, down), look.at(0.40, down)], look.shade, 0.015)


def _front_hair(canvas: _Canvas, look: _Look) -> None:
    n = look.nuisance
    side = n.parting
    lift = 1.02 + 0.14 * n.hair_volume
    crown = [
        look.at(-1.08, -0.18),
        look.at(-1.02, -0.62),
        look.at(-0.62, -0.96 * lift),
        look.at(0.0, -1.08 * lift),
        look.at(0.62, -0.96 * lift),
        look.at(1.02, -0.62),
        look.at(1.08, -0.18),
    ]
    fringe = [
        look.at(0.92, -0.40),
        look.at(0.62 * side, -0.70),
        look.at(0.30 * side, -0.80),
        look.at(-0.62 * side, -0.66),
        look.at(-0.92, -0.40),
    ]
    if side < 0:
        fringe = [
            look.at(0.92, -0.40),
            look.at(0.62, -0.66),
            look.at(-0.30, -0.80),
            look.at(-0.62, -0.70),
            look.at(-0.92, -0.40),
        ]
    canvas.shape(crown + fringe, look.hair)
    if n.curly:
        _curls(canvas, look, [(a, -1.0 + 0.45 * a * a) for a in (-0.8, -0.4, 0.0, 0.4, 0.8)], 0.042)
    for edge in (-1, 1):
        down = 0.06 if look.man else 0.62
        wide = 0.16 if look.man else 0.14
        out = 1.10 if look.man else 1.12
        strip = [
            look.at(edge * out, -0.50),
            look.at(edge * (out - wide), -0.52),
            look.at(edge * (out - wide), down),
            look.at(edge * out, down),
        ]
        canvas.shape(strip, look.temple)


# --- clothes and headwear -----------------------------------------------------------------


def _torso(canvas: _Canvas, look: _Look, colour: RGB) -> None:
    half = 0.40 if look.man else 0.345
    x = look.x
    canvas.box(x - half, 0.715, x + half, 1.3, colour, round_by=0.13)
    canvas.shape([(x - 0.13, 0.69), (x + 0.13, 0.69), (x + 0.2, 0.75), (x - 0.2, 0.75)], colour)


def _opening(
    canvas: _Canvas, look: _Look, colour: RGB, wide: float = 0.10, deep: float = 0.9
) -> None:
    x = look.x
    canvas.shape([(x - wide, 0.69), (x + wide, 0.69), (x, deep)], colour)


def _tie(canvas: _Canvas, look: _Look, colour: RGB) -> None:
    x = look.x
    canvas.shape([(x - 0.028, 0.73), (x + 0.028, 0.73), (x + 0.04, 0.95), (x - 0.04, 0.95)], colour)


def _detail_hue(look: _Look, first: float, spread: float) -> float:
    return first + spread * (look.nuisance.detail - 0.5)


def _doctor(canvas: _Canvas, look: _Look) -> None:
    _torso(canvas, look, (246, 248, 250))
    _opening(canvas, look, _hsv(_detail_hue(look, 0.58, 0.2), 0.45, 0.78))
    for side in (-1, 1):
        canvas.line(
            [(look.x + side * 0.12, 0.70), (look.x + side * 0.13, 0.86)], (64, 70, 84), 0.02
        )
    canvas.oval(look.x + 0.13, 0.89, 0.034, 0.034, (64, 70, 84))


def _nurse(canvas: _Canvas, look: _Look) -> None:
    scrubs = _hsv(_detail_hue(look, 0.48, 0.06), 0.55, 0.70)
    _torso(canvas, look, scrubs)
    _opening(canvas, look, _mix(look.skin, look.shade, 0.3), wide=0.09, deep=0.82)
    canvas.box(look.x + 0.11, 0.83, look.x + 0.22, 0.93, (248, 248, 250))
    canvas.box(look.x + 0.145, 0.845, look.x + 0.185, 0.915, (206, 48, 56))


def _chef(canvas: _Canvas, look: _Look) -> None:
    _torso(canvas, look, (250, 249, 246))
    _opening(canvas, look, _hsv(_detail_hue(look, 0.0, 0.1), 0.75, 0.82), wide=0.12, deep=0.79)
    for side in (-1, 1):
        for down in (0.84, 0.93):
            canvas.oval(look.x + side * 0.07, down, 0.018, 0.018, (60, 60, 66))


def _farmer(canvas: _Canvas, look: _Look) -> None:
    _torso(canvas, look, _hsv(_detail_hue(look, 0.02, 0.06), 0.62, 0.76))
    denim = (62, 92, 146)
    canvas.box(look.x - 0.17, 0.84, look.x + 0.17, 1.2, denim)
    for side in (-1, 1):
        canvas.line([(look.x + side * 0.15, 0.72), (look.x + side * 0.14, 0.88)], denim, 0.05)


def _firefighter(canvas: _Canvas, look: _Look) -> None:
    _torso(canvas, look, (44, 46, 60))
    canvas.box(look.x - 0.36, 0.87, look.x + 0.36, 0.93, (240, 222, 70))
    canvas.line([(look.x, 0.72), (look.x, 1.0)], (240, 222, 70), 0.03)


def _police(canvas: _Canvas, look: _Look) -> None:
    _torso(canvas, look, (58, 84, 140))
    _tie(canvas, look, (26, 32, 56))
    canvas.oval(look.x + 0.17, 0.84, 0.042, 0.048, (236, 196, 72))


def _builder(canvas: _Canvas, look: _Look) -> None:
    _torso(canvas, look, _hsv(_detail_hue(look, 0.6, 0.3), 0.35, 0.5))
    canvas.box(look.x - 0.25, 0.73, look.x + 0.25, 1.2, (250, 122, 34), round_by=0.04)
    _opening(canvas, look, _hsv(_detail_hue(look, 0.6, 0.3), 0.35, 0.5), wide=0.12, deep=0.88)
    canvas.box(look.x - 0.25, 0.90, look.x + 0.25, 0.95, (236, 238, 196))


def _judge(canvas: _Canvas, look: _Look) -> None:
    _torso(canvas, look, (28, 26, 32))
    canvas.shape(
        [
            (look.x - 0.05, 0.72),
            (look.x + 0.05, 0.72),
            (look.x + 0.085, 0.95),
            (look.x - 0.085, 0.95),
        ],
        (248, 248, 250),
    )
    canvas.line([(look.x, 0.76), (look.x, 0.95)], (190, 190, 198), 0.014)


def _teacher(canvas: _Canvas, look: _Look) -> None:
    cardigan = _hsv(_detail_hue(look, 0.12, 0.04), 0.72, 0.80)
    _torso(canvas, look, cardigan)
    _opening(canvas, look, (244, 240, 232), wide=0.12, deep=0.96)
    book = _hsv(_detail_hue(look, 0.78, 0.1), 0.5, 0.6)
    canvas.box(look.x + 0.12, 0.84, look.x + 0.30, 1.1, book)
    canvas.box(look.x + 0.15, 0.875, look.x + 0.27, 0.905, (244, 240, 232))


def _pilot(canvas: _Canvas, look: _Look) -> None:
    _torso(canvas, look, (34, 38, 58))
    _opening(canvas, look, (246, 246, 248), wide=0.10, deep=0.94)
    _tie(canvas, look, (20, 22, 34))
    for side in (-1, 1):
        for step in (0.0, 0.045):
            x = look.x + side * (0.26 - step)
            canvas.box(x - 0.014, 0.735, x + 0.014, 0.80, (234, 192, 74))


def _mechanic(canvas: _Canvas, look: _Look) -> None:
    _torso(canvas, look, (88, 118, 150))
    _opening(canvas, look, (210, 212, 216), wide=0.09, deep=0.80)
    canvas.line([(look.x, 0.80), (look.x, 1.0)], (52, 70, 92), 0.016)
    grip = (206, 210, 216)
    canvas.line([(look.x + 0.21, 0.84), (look.x + 0.21, 1.0)], grip, 0.045)
    canvas.oval(look.x + 0.21, 0.82, 0.05, 0.05, grip)
    canvas.box(look.x + 0.19, 0.76, look.x + 0.23, 0.82, (88, 118, 150))


def _painter(canvas: _Canvas, look: _Look) -> None:
    _torso(canvas, look, (226, 218, 204))
    for index, (across, down) in enumerate(
        ((-0.18, 0.86), (0.05, 0.91), (0.2, 0.83), (-0.06, 0.8))
    ):
        hue = look.nuisance.detail + 0.27 * index
        canvas.oval(look.x + across, down, 0.034, 0.030, _hsv(hue, 0.7, 0.85))


_CLOTHES = {
    "doctor": _doctor,
    "nurse": _nurse,
    "chef": _chef,
    "farmer": _farmer,
    "firefighter": _firefighter,
    "police officer": _police,
    "builder": _builder,
    "judge": _judge,
    "teacher": _teacher,
    "pilot": _pilot,
    "mechanic": _mechanic,
    "painter": _painter,
}


def _bareheaded(canvas: _Canvas, look: _Look) -> None:
    """Most occupations wear nothing on the head."""


def _toque(canvas: _Canvas, look: _Look) -> None:
    white = (252, 251, 248)
    for across in (-0.62, 0.0, 0.62):
        canvas.oval(*look.at(across, -1.28), 0.10, 0.085, white)
    (x0, y0), (x1, y1) = look.at(-0.86, -1.25), look.at(0.86, -0.72)
    canvas.box(x0, y0, x1, y1, white)
    canvas.box(x0, y1 - 0.03, x1, y1, (214, 214, 218))


def _straw_hat(canvas: _Canvas, look: _Look) -> None:
    straw = (226, 186, 98)
    canvas.wedge(*look.at(0, -0.68), look.width * 1.02, look.height * 0.72, (180, 360), straw)
    canvas.oval(*look.at(0, -0.70), look.width * 1.75, 0.042, straw)
    (x0, y0), (x1, y1) = look.at(-0.98, -0.90), look.at(0.98, -0.76)
    canvas.box(x0, y0, x1, y1, (150, 84, 52))


def _helmet(canvas: _Canvas, look: _Look) -> None:
    red = (204, 44, 40)
    canvas.wedge(*look.at(0, -0.55), look.width * 1.2, look.height * 0.92, (180, 360), red)
    canvas.oval(*look.at(0, -0.58), look.width * 1.42, 0.034, red)
    canvas.shape([look.at(-0.28, -1.15), look.at(0.28, -1.15), look.at(0.0, -0.72)], (240, 204, 84))


def _peaked(canvas: _Canvas, look: _Look, crown: RGB, badge: RGB) -> None:
    canvas.oval(*look.at(0, -1.0), look.width * 1.28, 0.075, crown)
    (x0, y0), (x1, y1) = look.at(-1.04, -0.98), look.at(1.04, -0.66)
    canvas.box(x0, y0, x1, y1, crown)
    canvas.wedge(*look.at(0, -0.70), look.width * 1.0, 0.055, (0, 180), (22, 22, 28))
    canvas.oval(*look.at(0, -0.94), 0.03, 0.03, badge)


def _police_cap(canvas: _Canvas, look: _Look) -> None:
    _peaked(canvas, look, (38, 54, 98), (236, 196, 72))


def _pilot_cap(canvas: _Canvas, look: _Look) -> None:
    _peaked(canvas, look, (244, 244, 246), (234, 192, 74))


def _hard_hat(canvas: _Canvas, look: _Look) -> None:
    yellow = (248, 206, 52)
    canvas.wedge(*look.at(0, -0.60), look.width * 1.14, look.height * 0.80, (180, 360), yellow)
    canvas.box(*look.at(-1.28, -0.68), *look.at(1.28, -0.54), yellow, round_by=0.012)
    canvas.box(*look.at(-0.14, -1.36), *look.at(0.14, -0.7), (222, 174, 34))


def _beret(canvas: _Canvas, look: _Look) -> None:
    felt = _hsv(_detail_hue(look, 0.97, 0.1), 0.65, 0.55)
    side = look.nuisance.parting
    canvas.oval(*look.at(0.22 * side, -0.96), look.width * 1.22, 0.082, felt)
    canvas.oval(*look.at(0.22 * side, -1.34), 0.016, 0.02, felt)


_HEADWEAR = {
    "chef": _toque,
    "farmer": _straw_hat,
    "firefighter": _helmet,
    "police officer": _police_cap,
    "builder": _hard_hat,
    "pilot": _pilot_cap,
    "painter": _beret,
}
