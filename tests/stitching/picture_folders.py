"""Image folders of a few plain pictures."""

from pathlib import Path

from PIL import Image

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


def picture_folder(root: Path, train: int = 4, val: int = 2, classes: int = 3) -> Path:
    """`root` with train/ and val/, one folder per colour, of pictures that differ in brightness."""
    greys = {f"grey{number}": (20 * number, 20 * number, 20 * number) for number in range(3, classes)}
    for split, count in (("train", train), ("val", val)):
        for name, colour in (COLOURS | greys).items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40, 40), _shade(colour, number)).save(folder / f"{number}.png")
    return root


def held_out_pictures(val: int = 2) -> list[tuple[int, int, int]]:
    """The colours of the pictures under val/, in the order of their names."""
    return [_shade(COLOURS[name], number) for name in sorted(COLOURS) for number in range(val)]


def _shade(colour: tuple[int, int, int], number: int) -> tuple[int, int, int]:
    red, green, blue = (value + 5 * number for value in colour)
    return red, green, blue
