"""The table of backbones, and the head that is put on one."""
