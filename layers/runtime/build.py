"""Builds the step adapter for both architectures, and prints the sizes: `python -m layers.runtime.build`.

`stepwell.aws.deploy.adapter` does the work, as an installed package builds the adapter too.
"""

from __future__ import annotations

from stepwell.aws.deploy.adapter import binary, layer_zip

ARCHITECTURES = ("arm64", "x86_64")


def main() -> None:
    for architecture in ARCHITECTURES:
        file, layer = binary(architecture), layer_zip(architecture)
        sizes = f"{file.stat().st_size / 1e6:4.1f} MB, {layer.stat().st_size / 1e6:4.1f} MB as a layer"
        print(f"{architecture:7} {sizes}  {file}")


if __name__ == "__main__":
    main()
