"""Decoding: stored pixels whatever the format and the EXIF orientation, 16 bits by their range, never half an image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from dataloader.images import decode_image, read_header, resize_image

_ORIENTATION = 0x0112


def gradient(height: int = 24, width: int = 40) -> np.ndarray:
    """Smooth RGB picture without any symmetry, uint8."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack((columns * 6, rows * 10, 255 - columns * 3 - rows * 2), -1).astype(np.uint8)


def with_orientation(path, image_HW3, tag):
    exif = Image.Exif()
    exif[_ORIENTATION] = tag
    options = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(image_HW3).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_stored_pixels_whatever_the_orientation(tmp_path, suffix, tag):
    path = with_orientation(tmp_path / f"a{suffix}", gradient(), tag)
    seen = decode_image(path)
    assert seen.shape == (24, 40, 3) and np.abs(seen.astype(int) - gradient()).mean() < 4
    header = read_header(path)
    assert (header.width, header.height, header.orientation) == (40, 24, tag)
    assert header.is_turned_sideways == (tag >= 5)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_header_without_a_usable_orientation(tmp_path, suffix):
    Image.fromarray(gradient()).save(tmp_path / f"a{suffix}")
    assert read_header(tmp_path / f"a{suffix}").orientation == 1
    assert read_header(with_orientation(tmp_path / f"b{suffix}", gradient(), 9)).orientation == 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_become_eight_by_their_range(tmp_path, suffix, channels):
    """Value 257 k is the same grey as k of 255; OpenCV writes the file, so nothing is shared with the decoder."""
    eight = gradient() if channels > 1 else gradient()[..., :1]
    eight = np.concatenate((eight, np.full_like(eight[..., :1], 255)), -1) if channels == 4 else eight
    order = [2, 1, 0, 3][:channels] if channels > 1 else [0]
    cv2.imwrite(str(tmp_path / f"a{suffix}"), eight[..., order].astype(np.uint16) * 257)
    assert np.array_equal(decode_image(tmp_path / f"a{suffix}"), np.broadcast_to(eight[..., :3], (24, 40, 3)))


def test_sixteen_bit_extremes(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 255, 256, 32768, 65535]], np.uint16))
    assert decode_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 0, 1, 128, 255]


@pytest.mark.parametrize("values", [np.float32(0.5), np.int32(70000)])
def test_thirty_two_bits_are_refused(tmp_path, values):
    Image.fromarray(np.full((4, 5), values)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="a.tif: TIFF with 32 bits per channel"):
        decode_image(tmp_path / "a.tif")


def test_cmyk_palette_and_alpha_become_rgb(tmp_path):
    colour = Image.new("RGB", (16, 16), (250, 10, 20))
    colour.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    colour.quantize(4).save(tmp_path / "palette.png")
    colour.quantize(4).save(tmp_path / "palette.tif")
    transparent = colour.convert("RGBA")
    transparent.putalpha(0)
    transparent.save(tmp_path / "transparent.png")
    for path in tmp_path.iterdir():
        seen = decode_image(path)
        assert seen.shape == (16, 16, 3) and np.abs(seen[8, 8].astype(int) - (250, 10, 20)).max() <= 4, path.name
    Image.new("LA", (3, 2), (77, 5)).save(tmp_path / "grey_alpha.png")
    assert (decode_image(tmp_path / "grey_alpha.png") == 77).all()


@pytest.mark.parametrize(
    ("suffix", "tail"),
    [
        (".png", "cut"),
        (".png", "zeros"),
        (".jpg", "cut"),
        (".jpg", "zeros"),
        (".tif", "cut"),
        (".tif", "zeros"),
        (".webp", "cut"),
    ],
)
@pytest.mark.parametrize("kept", [0.3, 0.9])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_what_is_not_whole_is_refused(tmp_path, suffix, tail, kept):
    """A file cut short, and one of full length whose rest never arrived."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise).save(path, **({"compression": "tiff_lzw"} if suffix == ".tif" else {}))
    whole = path.read_bytes()
    keep = int(len(whole) * kept)
    path.write_bytes(whole[:keep] + (bytes(len(whole) - keep) if tail == "zeros" else b""))
    with pytest.raises(ValueError, match=f"cannot decode image .*a{suffix}"):
        decode_image(path)


def test_a_complete_jpeg_may_be_padded(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    whole = decode_image(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + bytes(512))
    assert np.array_equal(decode_image(tmp_path / "a.jpg"), whole)


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "b.png").write_text("not an image")
    for name in ("a.jpg", "b.png"):
        for read in (decode_image, read_header):
            with pytest.raises(ValueError, match=f"cannot decode image .*{name}: of no known format"):
                read(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="image not found: .*none.png"):
        decode_image(tmp_path / "none.png")


def test_shrinking_averages_and_enlarging_interpolates():
    """By four: every pixel counts, not the two in the middle. By two: no blocks."""
    stripes_HW3 = np.zeros((8, 16, 3), np.uint8)
    stripes_HW3[:, ::4] = 200
    assert (resize_image(stripes_HW3, 2, 4) == 50).all()
    step_HW3 = np.repeat(np.array([[0, 100]], np.uint8)[..., None], 3, axis=2).repeat(2, axis=0)
    assert resize_image(step_HW3, 4, 4)[0, :, 0].tolist() == [0, 25, 75, 100]
    assert resize_image(step_HW3, 2, 2) is step_HW3
