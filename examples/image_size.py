"""How large an image is, told from its header before it is decoded."""

import struct

import tensorflow as tf

__all__ = ["count_pixels"]

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# Files that TensorFlow decodes, too, and whose first header does not bound the memory.
_REFUSED = {
    b"GIF8": "a GIF",
    b"\xff\x0a": "a JPEG XL",
    b"\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL",
}


def count_pixels(file):
    """The pixels that TensorFlow would make of a JPEG or PNG; 0 of anything else.

    A BMP counts as 0: its pixels are in the file as they are.

    Args:
        file: bytes.

    Raises:
        tf.errors.InvalidArgumentError: It is a GIF, WebP or JPEG XL; or a JPEG or PNG
            without a size.
    """
    if file.startswith(b"RIFF") and file[8:12] == b"WEBP":
        raise _invalid("a WebP, an image file format that is not taken")
    for mark, name in _REFUSED.items():
        if file.startswith(mark):
            raise _invalid(f"{name}, an image file format that is not taken")
    if file.startswith(_JPEG):
        height, width, _ = tf.io.extract_jpeg_shape(file).numpy().tolist()
        return height * width
    if file.startswith(_PNG):
        if len(file) < 24:
            raise _invalid("a PNG, an image file format, that ends in its header")
        width, height = struct.unpack_from(">II", file, 16)
        return width * height
    return 0


def _invalid(reason):
    return tf.errors.InvalidArgumentError(
        None, None, f"Received {reason}; send a JPEG or PNG."
    )
