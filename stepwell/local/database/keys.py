"""API keys, shown once and stored as SHA-256, and the secret that signs links.

Keys are long and random, so a slow hash would add nothing.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from pathlib import Path

from stepwell.api.access import Key, KeyScope, new_key
from stepwell.local.database.schema import connect, migrate
from stepwell.local.system.files import make_folder


class KeyStore:
    """Implements `api.access.Keys`. Keys made or revoked by other processes are honoured from the next request on."""

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        self._connection = connect(path)
        migrate(self._connection)
        self._version = -1
        self._scopes: dict[bytes, KeyScope] = {}

    def create(self, scope: KeyScope, name: str, now: int) -> tuple[Key, str]:
        """A new key, and the secret, which cannot be read again."""
        key, secret = new_key(scope, name, now)
        row = (key.id, _hash(secret), scope.value, name, now, None)
        self._connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?)", row)
        return key, secret

    def list(self) -> list[Key]:
        rows = self._connection.execute("SELECT id, scope, name, created_at, revoked_at FROM keys ORDER BY created_at")
        return [Key(i, KeyScope(scope), name, created, revoked) for i, scope, name, created, revoked in rows]

    def revoke(self, key_id: str, now: int) -> bool:
        """Revokes a key. Returns False if it does not exist or is already revoked."""
        sql = "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL"
        return self._connection.execute(sql, (now, key_id)).rowcount == 1

    def scope_of(self, key: str | None) -> KeyScope | None:
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()  # changes when another process writes
        if version != self._version:
            rows = self._connection.execute("SELECT hash, scope FROM keys WHERE revoked_at IS NULL")
            self._scopes = {hashed: KeyScope(scope) for hashed, scope in rows}
            self._version = version
        return self._scopes.get(_hash(key)) if key else None

    def close(self) -> None:
        self._connection.close()


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()


def link_secret(connection: sqlite3.Connection) -> bytes:
    """The secret that signs links, created at the first call. Must not run in a transaction that may be rolled back."""
    select = "SELECT value FROM secrets WHERE name = 'links'"
    if (row := connection.execute(select).fetchone()) is None:
        connection.execute("INSERT OR IGNORE INTO secrets VALUES ('links', ?)", (secrets.token_bytes(32),))
        row = connection.execute(select).fetchone()  # another process may have been faster
    secret: bytes = row[0]
    return secret


def database_name(connection: sqlite3.Connection) -> str:
    """A name of the database that no other has. Must not run in a transaction that may be rolled back."""
    return hashlib.sha256(b"name" + link_secret(connection)).hexdigest()[:16]
