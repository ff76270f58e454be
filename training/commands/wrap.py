"""The command `wrap`: makes a bundle from an ONNX classifier."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from training.commands.options import parse_labels, parse_named_paths, parse_numbers, parse_size
from training.console import announce, progress_bars
from training.errors import DataError


def wrap(
    model: Annotated[Path, typer.Argument(help="ONNX file of a classifier of images or texts.", show_default=False)],
    calibration: Annotated[
        Path,
        typer.Option(
            "--calibration",
            help="In-distribution data that the model was not trained on: a folder of images, .parquet, .csv or .txt.",
            show_default=False,
        ),
    ],
    logits: Annotated[
        str | None,
        typer.Option("--logits", help="Tensor with the logits (default: found behind the graph's outputs)."),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(
            "--preprocess",
            help="Preset of the images' preprocessing: torchvision, inception, keras-tf, keras-caffe, keras-torch, raw "
            "(0..255) or none (0..1); default: preprocessor_config.json or config.json next to MODEL, else none.",
        ),
    ] = None,
    mean: Annotated[
        list[str] | None,
        typer.Option(
            "--mean",
            help="Mean of pixel values in 0..SCALE, per channel in the graph's order: 0.5,0.5,0.5 or repeated.",
        ),
    ] = None,
    std: Annotated[
        list[str] | None,
        typer.Option("--std", help="Standard deviation per channel: the graph gets (pixel - mean) / std."),
    ] = None,
    scale: Annotated[
        float, typer.Option("--scale", min=0.001, help="Pixel value of white that --mean and --std refer to: 1 or 255.")
    ] = 1.0,
    layout: Annotated[
        Literal["nchw", "nhwc"] | None,
        typer.Option("--layout", help="Order of axes (default: by the input's shape or the first convolution)."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", help="Size of the images, HxW (default: the input's, else 224x224)."),
    ] = None,
    resize: Annotated[
        Literal["bilinear", "bicubic", "lanczos"] | None,
        typer.Option("--resize", help="Filter for images of other sizes (default: the preset's, else bilinear)."),
    ] = None,
    resize_to: Annotated[
        str | None,
        typer.Option(
            "--resize-to",
            help="Size before a centre crop: one number for the shorter side, or HxW (default: the preset's).",
        ),
    ] = None,
    bgr: Annotated[
        bool | None, typer.Option("--bgr/--rgb", help="Order of the graph's channels (default: the preset's).")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer",
            help="tokenizer.json of a classifier of texts (Hugging Face `tokenizers`; default: the one next to MODEL).",
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            min=1,
            help="Most tokens that it reads of a text (default: the tokenizer's limit).",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            help="Class names in the model's order: a,b,c or a file, one per line (default: config.json's, else the "
            "data's).",
        ),
    ] = None,
    fit: Annotated[
        Path | None,
        typer.Option(
            "--fit",
            help="Labelled training data, a folder with one sub-folder per class or a table: adds the scores "
            "mahalanobis and knn of the model's features.",
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option("--features", help="Tensor with the features (default: the input of the last linear layer)."),
    ] = None,
    neighbours: Annotated[
        bool,
        typer.Option(
            help="With --fit, write classes and file names or row numbers of training examples into the bundle, so "
            "that explanations can show the nearest ones.",
        ),
    ] = True,
    combine: Annotated[
        str | None,
        typer.Option(
            "--combine",
            help="Two scores, for example mahalanobis+msp: adds the score combined, the sum of both after "
            "standardisation. A fifth of the calibration data then standardises, the rest calibrates.",
        ),
    ] = None,
    test: Annotated[
        Path | None, typer.Option("--test", help="Labelled in-distribution test set for a report in the bundle.")
    ] = None,
    ood: Annotated[
        list[str] | None, typer.Option("--ood", help="Out-of-distribution set for the report, NAME=PATH; repeatable.")
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(
            "--validation",
            help="Out-of-distribution set that chooses the default score by AUROC and is no test set, NAME=PATH; "
            "repeatable; needs --test.",
        ),
    ] = None,
    image_column: Annotated[str, typer.Option("--image-column", help="Column of images in a table.")] = "image",
    text_column: Annotated[str, typer.Option("--text-column", help="Column of texts in a table.")] = "text",
    label_column: Annotated[
        str | None, typer.Option("--label-column", help="Column of classes in a table (default: label, if it exists).")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The bundle's name (default: the file's).")] = None,
    version: Annotated[int, typer.Option("--version", min=1, help="The bundle's version.")] = 1,
    description: Annotated[str, typer.Option("--description", help="The purpose of the model.")] = "",
    models: Annotated[Path, typer.Option("--models", help="Model repository to write the bundle to.")] = Path("models"),
    alpha: Annotated[
        float | None,
        typer.Option(
            "--alpha", min=1e-6, max=0.999, help="Default false-flag rate (default: 0.01, more if there are few data)."
        ),
    ] = None,
    default_score: Annotated[
        str | None,
        typer.Option(
            "--default-score", help="The bundle's default score (default: chosen by --validation, without it msp)."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bundle if it exists.")] = False,
    skip_broken: Annotated[
        bool,
        typer.Option(
            "--skip-broken", help="Leave out inputs that cannot be read and rows without a label; lists them."
        ),
    ] = False,
) -> None:
    """Make a bundle from an ONNX classifier without training: adds scores to the graph, calibrates and checks them.

    For example: python -m training wrap resnet.onnx --calibration held-out/ --preprocess torchvision

    The logits are found behind the softmax, sigmoid or argmax of the graph's outputs. The bundle's input is uint8
    images [N, H, W, C]; normalisation, channels and layout are added to the graph, resizing and crop to the manifest.

    For texts: python -m training wrap bert.onnx --calibration held-out.csv

    with tokenizer.json next to the graph. The bundle's input is token ids and lengths; the graph computes
    attention_mask and token_type_ids from them. Padding must not change a text's logits.

    With labelled training data the bundle also scores the model's features, which needs no outliers:
    python -m training wrap resnet.onnx --calibration held-out/ --fit train/
    """
    # Imported here, so that `--help` does not import torch.
    from training.commands.run import print_next_steps
    from training.data import guess_source
    from training.data.source_guess import require_no_splits
    from training.export.bundle_folder import bundle_name
    from training.recipe import Source
    from training.wrapping.image_adapter import ImageOptions
    from training.wrapping.options import WrapOptions
    from training.wrapping.wrap import wrap as wrap_classifier

    images_only = {
        "--mean": mean,
        "--std": std,
        "--layout": layout,
        "--size": size,
        "--preprocess": preprocess,
        "--resize": resize,
        "--resize-to": resize_to,
        "--bgr": bgr,
    }
    if tokenizer is not None and (wrong := [option for option, value in images_only.items() if value is not None]):
        raise DataError(wrong[0], "is for images, --tokenizer for texts", "Leave one out")
    data_dir = Path("/")

    def source(path: Path) -> Source:
        require_no_splits(path, label_column)
        return guess_source(path, data_dir, image=image_column, text=text_column, label=label_column)

    def unlabelled(path: Path) -> Source:
        found = guess_source(path, data_dir, image=image_column, text=text_column)
        return found.model_copy(update={"label": None})

    options = WrapOptions(
        model=model,
        logits=logits,
        calibration=source(calibration),
        name=bundle_name(name or model.stem),
        data_dir=data_dir,
        models=models,
        version=version,
        description=description,
        image=ImageOptions(
            preprocess=preprocess,
            layout=layout,
            size=None if size is None else parse_size(size),
            mean=tuple(parse_numbers("--mean", mean)),
            std=tuple(parse_numbers("--std", std)),
            scale=scale,
            bgr=bgr,
            resize=resize,
            resize_to=None if resize_to is None else _resize_to(resize_to),
        ),
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        labels=None if labels is None else parse_labels(labels),
        fit=None if fit is None else source(fit),
        features=features,
        neighbours=neighbours,
        combine=() if combine is None else tuple(name.strip() for name in combine.split("+")),
        test=None if test is None else source(test),
        ood={set_name: unlabelled(path) for set_name, path in parse_named_paths("--ood", ood).items()},
        validation={
            set_name: unlabelled(path) for set_name, path in parse_named_paths("--validation", validation).items()
        },
        alpha=alpha,
        default_score=default_score,
        overwrite=overwrite,
        skip_broken=skip_broken,
    )
    with progress_bars() as bars:
        path = wrap_classifier(options, announce, bars.report)
    print_next_steps(path, models)


def _resize_to(text: str) -> int | tuple[int, int]:
    """The size before a crop: one number is the shorter side, two are height and width."""
    height, width = parse_size(text)
    return (height, width) if "x" in text.lower() else height
