"""Tiles and their scores."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.split_file import ImageList
from engine.evaluation.zoom import zoomed
from engine.features.tiles import TileGrid, Tiles


def test_tiles_are_the_half_size_parts_in_reading_order(tmp_path):
    for name in ("a", "b"):
        image = Image.new("RGB", (40, 20))
        for number, corner in enumerate([(0, 0), (20, 0), (0, 10), (20, 10)]):
            image.paste((number * 50 + 10, 0, 200 if name == "b" else 0), (*corner, corner[0] + 20, corner[1] + 10))
        image.save(tmp_path / f"{name}.png")
    tiles = Tiles(ImageList(tmp_path, ["a", "b"], lambda image: image), zoom=2)
    assert len(tiles) == 8
    parts = [tiles[index][0] for index in range(8)]
    assert all(part.size == (20, 10) for part in parts)
    assert [part.getpixel((5, 5)) for part in parts] == \
        [(number * 50 + 10, 0, blue) for blue in (0, 200) for number in range(4)]


def test_middle_tile_of_three_is_the_centre(tmp_path):
    image = Image.new("RGB", (40, 40))
    image.paste((255, 0, 0), (10, 10, 30, 30))
    image.save(tmp_path / "a.png")
    images = ImageList(tmp_path, ["a"], lambda image: image)
    for tiles, index in ((Tiles(images, 3), 4), (Tiles(images, 1), 0)):
        assert tiles[index][0].getcolors() == [(400, (255, 0, 0))]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3, 2), (2, 1)])
def test_tiles_of_a_tiny_photo_show_it(size):
    photo = Image.new("RGB", size, "red")
    for grid in (TileGrid(per_side, parts) for per_side in (1, 2, 3) for parts in (2, 3)):
        tiles = [grid.cut(photo, tile) for tile in range(grid.count)]
        assert all(tile.getextrema() == ((255, 255), (0, 0), (0, 0)) for tile in tiles), "nothing beside the photo"
        assert all(1 <= side <= whole // grid.parts + 1 for tile in tiles for side, whole in zip(tile.size, size))


def test_tiles_of_a_third_reach_from_edge_to_edge():
    photo = Image.fromarray(np.arange(9 * 18, dtype=np.uint8).reshape(9, 18))
    pixels = np.asarray(photo)
    tiles = [np.asarray(TileGrid(4, parts=3).cut(photo, tile)) for tile in range(16)]
    assert all(tile.shape == (3, 6) for tile in tiles)
    for tile, (top, left) in {0: (0, 0), 3: (0, 12), 6: (2, 8), 15: (6, 12)}.items():
        assert (tiles[tile] == pixels[top:top + 3, left:left + 6]).all()


def test_zoomed_scores():
    full = torch.tensor([[1.0, 0.0], [2.0, 5.0]])
    tiles = torch.tensor([[0.0, 3.0], [4.0, -1.0], [1.0, 1.0], [0.0, 2.0]])  # two tiles an image
    assert zoomed(full, tiles).tolist() == [[5.0, 3.0], [3.0, 7.0]]
