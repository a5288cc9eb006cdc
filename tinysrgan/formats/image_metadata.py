"""An image file's metadata: read from the input, written with the result."""

from __future__ import annotations

import re
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin

TAG = ExifTags.Base

# Tags that describe the picture, not how a file stores it.
DESCRIPTIVE = (
    TAG.ImageDescription,
    TAG.Make,
    TAG.Model,
    TAG.Software,
    TAG.DateTime,
    TAG.Artist,
    TAG.HostComputer,
    TAG.Copyright,
    TAG.Rating,
    TAG.RatingPercent,
    TAG.XPTitle,
    TAG.XPComment,
    TAG.XPAuthor,
    TAG.XPKeywords,
    TAG.XPSubject,
)
# EXIF tags that refer to the old pixels or the old file.
STALE = {
    TAG.ExifImageWidth,
    TAG.ExifImageHeight,
    TAG.ExifInteroperabilityOffset,
    0x9214,  # the subject's area
    TAG.SubjectLocation,
    TAG.FocalPlaneXResolution,
    TAG.FocalPlaneYResolution,
    TAG.FocalPlaneResolutionUnit,
}
XMP_TAG = 700  # in a TIFF
XMP_KEY = "XML:com.adobe.xmp"  # in a PNG
LARGEST_BLOCK = 65_000  # bytes of EXIF, XMP or comment in a JPEG

# What Pillow can write into each format.
HELD = {
    "PNG": {"icc_profile", "dpi", "exif", "xmp", "comment", "text"},
    "TIFF": {"icc_profile", "dpi", "exif", "xmp"},
    "JPEG": {"icc_profile", "dpi", "exif", "xmp", "comment"},
    "WEBP": {"icc_profile", "dpi", "exif", "xmp"},
    "BMP": {"dpi"},
    "GIF": {"comment"},
    "JPEG2000": {"comment"},
}
# Metadata whose loss is said. A comment mostly names the program that wrote the file.
SPOKEN = {"icc_profile": "colour profile", "dpi": "resolution", "exif": "EXIF", "xmp": "XMP", "text": "texts"}


def carried(file: Image.Image, turned: bool) -> dict[str, Any]:
    """The metadata of an open, loaded file, by the names in ``HELD``; EXIF is None if it is damaged.

    turned: whether EXIF's rotation exchanges width and height. The rotation itself is left out.
    """
    texts = {key: text for key, text in getattr(file, "text", {}).items() if not key.startswith("Raw profile type")}
    xmp = file.info.get("xmp") or texts.pop(XMP_KEY, b"")
    texts.pop(XMP_KEY, None)
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    about = {
        "icc_profile": file.info.get("icc_profile"),
        "xmp": re.sub(rb'tiff:Orientation="\d+"|<tiff:Orientation>\d+</tiff:Orientation>', b"", xmp),
        "comment": file.info.get("comment") or texts.pop("Comment", None),
        "text": texts,
    }
    try:
        about["dpi"] = _dpi(file)
        if turned and about["dpi"]:
            about["dpi"] = about["dpi"][::-1]
        exif = _exif(file.getexif())
        exif.tobytes()
        about["exif"] = exif if len(exif) else b""
    except Exception:  # Pillow raises nearly anything, and the pixels are fine
        about["exif"] = None
    return {name: value for name, value in about.items() if value or (name == "exif" and value is None)}


def _dpi(file: Image.Image) -> tuple[float, float] | None:
    """Pixels per inch, (horizontal, vertical); None if the file states none, or none that makes sense."""
    exif = file.getexif()
    dpi = file.info.get("dpi")
    if dpi is None and (inches := {2: 1, 3: 2.54}.get(exif.get(TAG.ResolutionUnit, 0))):
        dpi = [float(exif.get(tag, 0)) * inches for tag in (TAG.XResolution, TAG.YResolution)]
    if dpi is None or not all(1 < value <= 65535 for value in map(float, dpi)):
        return None  # 1 is what Pillow takes for a TIFF that states nothing
    return float(dpi[0]), float(dpi[1])


def _exif(source: Image.Exif) -> Image.Exif:
    """EXIF's description of the picture, without rotation, size and thumbnail."""
    exif = Image.Exif()
    for tag in DESCRIPTIVE:
        if tag in source:
            exif[tag] = source[tag]
    for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if content := {tag: value for tag, value in source.get_ifd(group).items() if tag not in STALE}:
            exif[group] = content
    return exif


def save_options(about: dict[str, Any], name: str, mode: str) -> tuple[dict[str, Any], list[str]]:
    """Pillow's options that write ``about`` into an image of a format and mode; and what is lost, in words."""
    kept = {key: value for key, value in about.items() if key in HELD.get(name, ())}
    lost = [SPOKEN[key] for key in about if key in SPOKEN and key not in kept]
    if (profile := kept.get("icc_profile")) and (space := profile[16:20]) != (b"GRAY" if mode[0] == "L" else b"RGB "):
        del kept["icc_profile"]
        lost.append(f"colour profile, which is for {space.decode('ascii', 'replace').strip()} pixels")
    comment, texts = kept.get("comment"), kept.pop("text", {})
    if "exif" in kept or (name == "WEBP" and "dpi" in kept) or (name == "TIFF" and "xmp" in kept):
        exif = kept.get("exif") or Image.Exif()
        if "dpi" in kept:
            exif[TAG.XResolution], exif[TAG.YResolution] = kept["dpi"]
            exif[TAG.ResolutionUnit] = 2  # inches
        if name == "TIFF" and "xmp" in kept:
            exif[XMP_TAG] = kept.pop("xmp")
        kept["exif"] = exif.tobytes()
    if name == "PNG" and (texts or "xmp" in kept or comment):
        kept["pnginfo"] = info = PngImagePlugin.PngInfo()
        if comment := kept.pop("comment", None):
            texts = {"Comment": comment if isinstance(comment, str) else comment.decode("utf-8", "replace")} | texts
        for key, text in texts.items():
            info.add_text(key, text)
        if xmp := kept.pop("xmp", None):
            info.add_itxt(XMP_KEY, xmp.decode("utf-8", "replace"))
    elif comment:
        kept["comment"] = comment if isinstance(comment, bytes) else comment.encode()
    if name == "JPEG":
        for key in [key for key in ("exif", "xmp", "comment") if len(kept.get(key, b"")) > LARGEST_BLOCK]:
            del kept[key]
            lost.append(f"{SPOKEN.get(key, key)}, which is too long")
    return kept, lost
