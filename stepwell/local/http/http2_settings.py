"""What a server allows the clients of its HTTP/2 connections: streams, bytes on their way, headers to remember."""

from __future__ import annotations

import h2.config
import h2.connection
from h2.settings import SettingCodes, Settings

from stepwell.local.http.http2_frames import MOST_HEADER_BYTES

MOST_STREAMS = 100
_WINDOW = 1024 * 1024  # bytes of bodies that may be on their way
_TABLE_BYTES = 4096  # of headers that are remembered for a client, whatever it allows


class _H2(h2.connection.H2Connection):
    MAX_CLOSED_STREAMS = 1000  # it would remember 65,536


def new_server_side() -> h2.connection.H2Connection:
    """The protocol of a new connection, with the server's preface and settings ready to be sent."""
    connection = _H2(h2.config.H2Configuration(client_side=False, header_encoding=None))
    connection.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: MOST_HEADER_BYTES,
        },
    )
    connection.initiate_connection()
    # From when the client knows it: one that does not know it yet is not to lose all of its requests.
    connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS})
    connection.increment_flow_control_window(_WINDOW - connection.inbound_flow_control_window)
    return connection


def bound_header_table(connection: h2.connection.H2Connection) -> None:
    """Call it when the client has changed its settings: they may allow a larger table."""
    connection.encoder.header_table_size = min(connection.encoder.header_table_size, _TABLE_BYTES)
