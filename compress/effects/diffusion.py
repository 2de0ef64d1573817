"""The effect ``diffusion``: a diffusion model changes an image as a text says.

Meng et al. 2022, "SDEdit: Guided image synthesis and editing with stochastic differential
equations": the image gets noise, and the model takes it off again. The model is a pipeline of
diffusers in a folder on this machine; nothing is downloaded, no pickle is read, and no code that
lies in the folder is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from compress.backends.onnx.quiet import quiet
from compress.config.fields import LARGEST_SEED, Number, Whole
from compress.config.recipe_file import located
from compress.effects.strength import strength_of
from compress.errors import CheckpointError, MissingExtra, in_words
from compress.io.files import named, read_json
from compress.quoting import shown

__all__ = ["Diffusion"]

Array = np.ndarray[Any, Any]

_INDEX = "model_index.json"
# Where the parts of a pipeline come from; any other name is code in the folder.
_LIBRARIES = ("diffusers", "transformers")
_MOST_BYTES = 1 << 20
_Text = Annotated[str, Field(max_length=2000)]


class Diffusion:
    """An image that a diffusion model changes as a text says; the control is ``strength``.

    At strength 0 the image stays as it is, and at 1 nothing of it is left. Of ``steps``, that share
    is run, so that it moves in steps of ``1 / steps``. Without the control it is 0.5.

    Args:
        model: folder of a pipeline of diffusers with safetensors, from the recipe.
        prompt: what the image should become.
        negative_prompt: what it should not become.
        steps: of taking noise off, at strength 1; the time grows with it.
        guidance: how closely the text is followed (Ho and Salimans 2021); 1 is without.
        seed: of the noise, which is the same for every image.
    """

    def __init__(
        self,
        *,
        model: Path,
        prompt: _Text,
        negative_prompt: _Text = "",
        steps: Annotated[Whole, Field(ge=1, le=1000)] = 30,
        guidance: Annotated[Number, Field(ge=1, le=100)] = 7.5,
        seed: Annotated[Whole, Field(ge=0, le=LARGEST_SEED)] = 0,
    ) -> None:
        self.model, self.prompt, self.negative_prompt = model, prompt, negative_prompt
        self.steps, self.guidance, self.seed = steps, float(guidance), seed

    def __call__(self, image: Array, controls: Mapping[str, float]) -> Array:
        """What the image becomes, ``(height, width, 3)`` in numbers from 0 to 1.

        Raises:
            RecipeError: a control that it does not have, or a strength beyond 0 and 1.
            CheckpointError: the folder holds no pipeline that can be read.
            MissingExtra: diffusers is not installed.
        """
        strength = strength_of(controls, "diffusion", 0.5)
        if int(self.steps * strength) == 0:
            return image.astype(np.float32) / 255
        from PIL import Image

        pipeline = self._pipeline
        with quiet(), torch.no_grad():
            made: Array = pipeline(
                prompt=self.prompt,
                negative_prompt=self.negative_prompt,
                image=Image.fromarray(image),
                strength=strength,
                num_inference_steps=self.steps,
                guidance_scale=self.guidance,
                generator=torch.Generator().manual_seed(self.seed),
                output_type="np",
            ).images[0]
        return made

    @cached_property
    def _pipeline(self) -> Any:
        folder = located(self.model)
        _check(folder)
        try:
            with quiet():
                from diffusers import AutoPipelineForImage2Image
        except ImportError as error:
            raise MissingExtra(
                "the effect diffusion needs diffusers: pip install 'compresskit[diffusion]'."
            ) from error
        try:
            with quiet():
                pipeline = AutoPipelineForImage2Image.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True
                )
        except Exception as error:  # of every kind on damaged files
            raise CheckpointError(
                f"{named(folder)}: no pipeline from image to image can be read from it "
                f"({in_words(error)}); give a folder that diffusers has saved, with safetensors."
            ) from error
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def _check(folder: Path) -> None:
    """Refuse a folder that names code of its own for a part, before anything is loaded.

    Raises:
        CheckpointError: it does, or it is no pipeline.
    """
    path = folder / _INDEX
    index = read_json(path, _MOST_BYTES, CheckpointError, where="the effect diffusion: ")
    index = index if isinstance(index, dict) else {}
    named_parts = {name: part for name, part in index.items() if isinstance(part, list)}
    if not named_parts or not isinstance(index.get("_class_name"), str):
        raise CheckpointError(
            f"{named(path)}: it is of no pipeline with classes of diffusers; give a folder that "
            "diffusers has saved."
        )
    for name, part in named_parts.items():
        if part and part[0] is not None and part[0] not in _LIBRARIES:
            raise CheckpointError(
                f"{named(path)}: {shown(name)} is of {shown(part[0])}; parts are of "
                f"{' and '.join(_LIBRARIES)} alone, and code in the folder is not run."
            )
