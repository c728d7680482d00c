"""How large a batch may be that so many images fill. Imports nothing of imagemill's."""

from __future__ import annotations


def largest_batch_size(images: int, *, devices: int = 1) -> int:
    """The largest product of `devices`, which share a batch, and a power of 2 that so many images fill; at least `devices`."""
    return devices << max(images // devices, 1).bit_length() - 1


def advise_smaller(images: int, *, devices: int) -> str:
    """What to do where a batch is larger than all images: the end of an error."""
    size = largest_batch_size(images, devices=devices)
    return f"lower it, such as by --set batch_size={size}" if size <= images else "use fewer `resources.devices`"
