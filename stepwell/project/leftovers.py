"""Names of files and folders that editors, operating systems and tools leave behind. They are no code.

They change nothing about what a step does, but they come and go, and a swap file holds text that nobody has saved. The
hash of code, its copies, what is pushed, the search for functions and the watcher of `stepwell dev` leave them out.
"""

from __future__ import annotations

import re
from fnmatch import translate

_EDITORS = (
    "*~",  # backups of Emacs, gedit and others; Vim's undo files
    "*.sw[op]",  # Vim's swap files
    ".*.sw[a-z]",
    ".sw[a-z]",
    "4913",  # Vim makes it to see whether it can write here
    ".#*",  # Emacs: locks
    "#*#",  # Emacs: what is not saved yet
    "flycheck_*",
    "*___jb_???___",  # JetBrains: written beside the file, and then renamed
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
    "._*",  # macOS: attributes of a file, on disks that have none
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
    """Whether a file or folder of this name was left behind by an editor, an operating system or a tool."""
    return _is_leftover(name) is not None
