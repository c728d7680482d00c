"""Models for other programs, each proved equal to the trained one."""
