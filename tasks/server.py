"""Whether the Prefect server of this process will be there when it has ended: the temporary one of a command will not."""

from __future__ import annotations

import os

TEMPORARY = "IMAGEMILL_TEMPORARY_SERVER"  # environment variable: address of the temporary server, where there is one


def is_server_lasting() -> bool:
    """Whether a server is configured, whom others hear and who remembers."""
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    return url is not None and url != os.environ.get(TEMPORARY)
