"""``reid-edge explain``: show a network's gates and activations on crops, as one page or one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reid_edge.cli.shared_options import ForceOption, SkipBadOption
from reid_edge.console import console, extra, progress_bars, say
from reid_edge.errors import FrameError
from reid_edge.wording import counted

PAGE = Path("explain.html")


def explain(
    checkpoint: Annotated[Path, typer.Argument(help="A .safetensors that reid-edge wrote, or torchreid's .pth.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of images; each image is one crop.")],
    clusters: Annotated[
        int, typer.Option(min=0, help="Number of clusters of gate vectors. 0: activation maps only.")
    ] = 8,
    nearest: Annotated[int, typer.Option(min=1, help="Images to show for each cluster.")] = 15,
    maps: Annotated[int, typer.Option(min=0, help="Number of activation maps; images are taken evenly.")] = 24,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed of the clustering.")] = 1,
    out: Annotated[Path, typer.Option(help="Output: a self-contained .html page, or a .png sheet.")] = PAGE,
    skip_bad: SkipBadOption = False,
    force: ForceOption = False,
) -> None:
    """Show what the network looks at: groups of images with similar gate weights, and activation maps."""
    with extra("explain", "explaining a network"):
        from reid_edge.osnet.shipped import find_checkpoint
        from reid_edge.training.explain.explanation import PRIVACY, ExplainOptions
        from reid_edge.training.explain.explanation import explain as explain_checkpoint
        from reid_edge.training.explain.output import open_writer

    from reid_edge.images import list_images

    options = ExplainOptions(clusters=clusters, nearest=nearest, maps=maps, seed=seed)
    write = open_writer(out, force=force)
    loaded = find_checkpoint(checkpoint, None, say)
    paths = list_images(images)
    if skip_bad:
        paths = _readable(paths)
    with progress_bars() as notify:
        on_block = notify("running images through the network", len(paths))
        explanation = explain_checkpoint(loaded, paths, options, name=checkpoint.name, on_block=on_block)
    write(explanation)
    console.print(f"{out}: {explanation.title}, {counted(len(paths), 'image')}\n{PRIVACY}", soft_wrap=True)


def _readable(paths: list[Path]) -> list[Path]:
    from reid_edge.images import left_out, read_images

    readable = [path for path, image in read_images(paths, skip_bad=True) if image is not None]
    if not readable:
        raise FrameError(f"none of {counted(len(paths), 'image')} can be read, e.g. {paths[0]}. Copy them again.")
    if unreadable := sorted(set(paths) - set(readable)):
        say(left_out(unreadable, len(paths)))
    return readable
