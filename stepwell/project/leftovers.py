"""Names of files and folders that editors, operating systems and tools leave behind. They do not count as code.

Such files do not change what a step does, but they come and go, and a swap file contains unsaved text. They are left
out of the hash of code, of the copies, of a push, of the search for functions, and of what `stepwell dev` watches.
"""

from __future__ import annotations

import re
from fnmatch import translate

_EDITORS = (
    "*~",  # backups of Emacs, gedit and others; Vim's undo files
    "*.sw[op]",  # Vim's swap files
    ".*.sw[a-z]",
    ".sw[a-z]",
    "4913",  # Vim creates it to test whether the folder is writable
    ".#*",  # Emacs: lock files
    "#*#",  # Emacs: auto-save files
    "flycheck_*",
    "*___jb_???___",  # JetBrains: a temporary file that is then renamed
    ".*.kate-swp",
    ".netrwhist",
    ".goutputstream-*",
    ".~lock.*#",
    ".idea",
    ".vs",
    ".vscode",
)
_SYSTEMS = (
    ".DS_Store",
    "._*",  # macOS: a file's attributes, on disks that cannot store them
    ".AppleDB",
    ".AppleDesktop",
    ".AppleDouble",
    ".DocumentRevisions-V100",
    ".LSOverride",
    ".Spotlight-V100",
    ".TemporaryItems",
    ".Trashes",
    ".VolumeIcon.icns",
    ".apdisk",
    ".fseventsd",
    "Icon\r",
    "[Tt]humbs.db",
    "[Tt]humbs.db:encryptable",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "[Dd]esktop.ini",
    "$RECYCLE.BIN",
    "~$*",
    "*:Zone.Identifier",
    ".directory",
    ".Trash-*",
    ".nfs*",  # a file that was deleted while a process had it open
    ".fuse_hidden*",
)
_TOOLS = (".hg", ".svn", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache")

_is_leftover = re.compile("|".join(map(translate, (*_EDITORS, *_SYSTEMS, *_TOOLS)))).match


def is_leftover(name: str) -> bool:
    """Whether a file or folder with this name is a leftover of an editor, an operating system or a tool."""
    return _is_leftover(name) is not None
