"""What the server allows a client on an HTTP/2 connection: streams, bytes in flight, remembered headers."""

from __future__ import annotations

import h2.config
import h2.connection
from h2.settings import SettingCodes, Settings

from stepwell.local.http.http2_frames import MOST_HEADER_BYTES

MOST_STREAMS = 100
_WINDOW = 1024 * 1024  # bytes of bodies that may be in flight
_TABLE_BYTES = 4096  # of the table of headers for a client, even if the client allows more


class _H2(h2.connection.H2Connection):
    MAX_CLOSED_STREAMS = 1000  # the default is 65,536


def new_server_side() -> h2.connection.H2Connection:
    """The server side of a new connection; preface and settings are ready to be sent."""
    connection = _H2(h2.config.H2Configuration(client_side=False, header_encoding=None))
    connection.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: MOST_HEADER_BYTES,
        },
    )
    connection.initiate_connection()
    # Enforced once the client has acknowledged it, since a client that does not know the limit could lose requests.
    connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS})
    connection.increment_flow_control_window(_WINDOW - connection.inbound_flow_control_window)
    return connection


def bound_header_table(connection: h2.connection.H2Connection) -> None:
    """Limits the table of headers. Call it when the client's settings have changed: they may allow a larger one."""
    connection.encoder.header_table_size = min(connection.encoder.header_table_size, _TABLE_BYTES)
