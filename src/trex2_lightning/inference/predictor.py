"""All ways to prompt a trained detector (T-Rex2, section 3.4): the Python API behind trex2 predict.

C categories, M exemplars of one of them in one image, n reference images, D model width.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, overload

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from trex2_lightning.config import Config, Precision
from trex2_lightning.data.images.transforms import eval_transform
from trex2_lightning.errors import InputError
from trex2_lightning.inference.encoding import AnyImage, AnyPicture, EncodedImage, padded_batches, picture_of
from trex2_lightning.inference.inputs import as_names, as_phrases
from trex2_lightning.inference.marks import Marks, as_references, check_kinds, check_known, read_marks
from trex2_lightning.inference.precision import computes_half
from trex2_lightning.inference.pretrained import load_pretrained
from trex2_lightning.inference.search import Search, asked_of, thresholds_of
from trex2_lightning.inference.thresholds import NothingFound, Threshold, tell_unfitted
from trex2_lightning.models.compiling import compile_parts
from trex2_lightning.ops.prompt_tokens import category_vectors
from trex2_lightning.prompting.prompt_file import asked_by_name, check_wanted, repeated
from trex2_lightning.prompting.prompt_set import (
    Mix,
    PromptSet,
    fingerprint,
    from_one_source,
    load_prompts,
    mixed,
    network_fingerprint,
    save_prompts,
    without_exemplars,
)
from trex2_lightning.structures import Detection, FeatureMaps, Images, Prompts, PromptSource, PromptTokens
from trex2_lightning.training.acceleration import use_matmul_precision
from trex2_lightning.training.module import DetectionModule

Reference = tuple[AnyImage, Marks]


class Predictor:
    """A trained, frozen detector: prompts from phrases, exemplars and files, and detections with them.

    An image is what `inference.encoding` takes, or what `encode` has made of one, which is faster where it is prompted
    repeatedly. Pixels are those of a file as viewers show it, turned by its EXIF orientation; others are as they are.

    Args:
        config: the run.
        module: its trained module, on the device that is to be used.
        precision: of the detector's layers, as `train.precision`; scores and boxes are float32 in any case. None: that
            of the training on a GPU, float32 on a CPU. A GPU's products of float32 are in the whole process as
            `train.float32_matmul_precision` says: TF32 unless it was `highest`.
        compile: the backbone and the layers (`models.compiling`): takes a minute or more at the first image, so it
            pays from some hundreds of images.

    Raises:
        InputError: there is no such precision, or the GPU lacks it.
    """

    def __init__(
        self, config: Config, module: DetectionModule, *, precision: Precision | None = None, compile: bool = False
    ) -> None:
        module.freeze()
        use_matmul_precision(config.train, module.device)
        wanted = config.train.precision if precision is None else precision
        self._half = computes_half(wanted, module.device, asked=precision is not None)
        if compile:
            compile_parts(module.detector)
        self.module = module
        self._config = config
        self.transform = eval_transform(config.data, module.detector.backbone.pixels)
        self._last: tuple[PromptSet, PromptTokens] | None = None
        self._nothing = NothingFound()

    @classmethod
    def from_pretrained(
        cls, what: str | Path, *, precision: Precision | None = None, compile: bool = False
    ) -> Predictor:
        """The detector of a checkpoint, a run's folder, or a Grounding DINO of the hub, on the GPU where there is one.

        Raises:
            InputError: as `load_pretrained`.
        """
        config, module = load_pretrained(what)
        module = module.to("cuda" if torch.cuda.is_available() else "cpu")
        return cls(config, module, precision=precision, compile=compile)

    from_checkpoint = from_pretrained  # its former name

    def autocast(self) -> torch.autocast:
        """The context in which the detector is called: of its precision."""
        return torch.autocast(self.module.device.type, torch.bfloat16, enabled=self._half)

    def encode(self, image: AnyPicture) -> EncodedImage:
        """See an image, for any number of prompts.

        Raises:
            InputError: an unreadable file, or no image.
        """
        picture = picture_of(image)
        [batch] = padded_batches([picture], self.transform)
        return EncodedImage(self.see(batch.images), (picture.height, picture.width))

    @torch.no_grad()
    def see(self, images: Images) -> FeatureMaps:
        """See a batch of images, on any device, that `transform` has made of pictures."""
        device = self.module.device
        images = images._replace(pixels=images.pixels.to(device), valid=images.valid.to(device))
        with self.autocast():
            return self.module.detector.encode_image(images)

    def text(self, phrases: str | Sequence[str]) -> PromptSet:
        """Each phrase on its own, or a single one; its category is named by it.

        Raises:
            InputError: a phrase is empty, given twice, too long, or a sentence of several names.
        """
        return self.mixed(phrases, ())

    def interactive(self, image: AnyImage, exemplars: Marks) -> PromptSet:
        """What looks like the exemplars, one vector per category; meant for the same image (T-Rex2, section 3.4).

        Raises:
            InputError: as `mixed`.
        """
        return from_one_source(self.generic([(image, exemplars)]), "interactive")

    def generic(self, references: Sequence[Reference]) -> PromptSet:
        """What looks like the exemplars in any image: the mean over the images that have some (T-Rex2, equation 11).

        Raises:
            InputError: as `mixed`.
        """
        return self.mixed((), references)

    @torch.no_grad()
    def mixed(self, phrases: str | Sequence[str], references: Sequence[Reference], mix: Mix = "half") -> PromptSet:
        """Categories of phrases and of exemplars; one that has both, under one name, gets their mean.

        A detector that has learned no visual prompts is asked for such a category by its phrase, and what it finds is
        compared with the exemplars. Where the detector reads words, a phrase's vector is their mean. That goes into a
        mean with exemplars and into tuning; but what a phrase alone has prompted, `detect` asks for by its words.

        Args:
            phrases: text prompts.
            references: images with exemplars.
            mix: weight of a phrase's vector beside those of n images: a half (T-Rex2, section 3.4), or as much as
                each of the others ("mean", T-Rex issue 98).

        Raises:
            InputError: a phrase as in `text`; exemplars that do not lie in their image, or are boxes and points of one
                category (T-Rex issue 85); an unreadable image; or exemplars for a checkpoint of text alone.
        """
        phrases = as_phrases(phrases)
        if twice := repeated(phrases):
            raise InputError(f"the phrase '{twice}' is given twice: give each once")
        references = as_references(references)
        marked = [exemplars for _, exemplars in references]
        check_kinds(marked)
        check_known(self.module.knows_exemplars, marked)
        shown = [self._read(self._encoded(image), exemplars) for image, exemplars in references]
        written = {}
        if phrases:
            text_vectors = category_vectors(self._encode_prompts(Prompts(phrases)))
            written = dict(zip(phrases, text_vectors[0], strict=True))
        return mixed(written, shown, self._config.model.width, mix, learned=self.module.visual_trained)

    @overload
    def detect(
        self, image: AnyImage, prompts: PromptSet, threshold: Threshold = None, negative: Collection[str] = ()
    ) -> list[Detection]: ...

    @overload
    def detect(
        self, image: list[AnyPicture], prompts: PromptSet, threshold: Threshold = None, negative: Collection[str] = ()
    ) -> list[list[Detection]]: ...

    def detect(
        self, image: Any, prompts: PromptSet, threshold: Threshold = None, negative: Collection[str] = ()
    ) -> list[Detection] | list[list[Detection]]:
        """Find what the prompts ask for; where that is nothing, the best score is logged, once for each set of prompts.

        An object that looks like several categories is found as each of them. A negative category takes away the
        objects that look like it more than like any other, and nothing else.

        Args:
            image: to look at; of a list, those of one size are looked at as one batch, which must fit into memory.
            prompts: what to look for.
            threshold: lowest score that is kept, of all categories or by name; None, and for other names: the
                checkpoint's own for each kind of prompt.
            negative: names among those of `prompts` whose objects are not wanted.

        Returns:
            Best first, at most `eval.max_detections`; of a list of images, a list for each.

        Raises:
            InputError: an unreadable image, no category to look for, or a negative or a threshold that is none of them.
        """
        search, several = self.search(prompts, threshold, negative), isinstance(image, list)
        candidates: dict[int, list[Detection]] = {}
        if several:
            for places, images in padded_batches([picture_of(picture) for picture in image], self.transform):
                candidates |= zip(places, search.candidates(self.see(images), images.sizes), strict=True)
        else:
            encoded = self._encoded(image)
            [candidates[0]] = search.candidates(encoded.features, torch.tensor([encoded.size]))
        found = [search.found(candidates[place]) for place in range(len(candidates))]
        if not any(found):
            self._nothing.tell(prompts, chain.from_iterable(candidates.values()))
        return found if several else found[0]

    @torch.no_grad()
    def search(
        self, prompts: PromptSet, threshold: Threshold = None, negative: Collection[str] = (), nms: float | None = None
    ) -> Search:
        """What is looked for in many images, prepared once; arguments as of `detect` and of `Search`."""
        negative = as_names(negative)
        check_wanted(prompts.names, negative)
        least = thresholds_of(self.module, prompts, threshold)
        most, asked = self._config.eval.max_detections, self._asked(prompts)
        return Search(self.module.detector, prompts, asked, self._proposing, most, least, self.autocast, negative, nms)

    @torch.no_grad()
    def present(self, image: AnyImage, prompts: PromptSet) -> dict[str, float]:
        """The probability, by name, that the image has at all what is asked for; `detect` has it in its scores.

        Without what exemplars ask of a detector that has learned no visual prompts: it cannot say.

        Raises:
            InputError: an unreadable image, nothing to look for, or a checkpoint without a presence head.
        """
        check_wanted(prompts.names)
        encoded, detector = self._encoded(image), self.module.detector
        known = prompts if self._proposing is None else without_exemplars(prompts, self._named)
        if not known.names:
            return {}
        with self.autocast():
            present = detector.present(detector.decode(encoded.features, self._asked(known)))
        return dict(zip(known.names, present[0].tolist(), strict=True))

    def save(self, prompts: PromptSet, path: str | Path) -> None:
        """Write prompts that this detector has made to a `.safetensors` file."""
        save_prompts(prompts, path, self._fingerprint, self._network)

    def load(self, path: str | Path) -> PromptSet:
        """Read prompts that a detector with the same weights has made, on any machine.

        Raises:
            InputError: as `load_prompts`.
        """
        learned = self.module.visual_trained
        return load_prompts(path, self._config.model.width, self._fingerprint, self._network, learned=learned)

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.module.detector)

    @cached_property
    def _network(self) -> str:
        return network_fingerprint(self.module.detector)

    @cached_property
    def _proposing(self) -> PromptTokens | None:
        return self.module.proposing()

    @property
    def _named(self) -> tuple[PromptSource, ...]:
        return asked_by_name(learned=self.module.visual_trained)

    def _encoded(self, image: AnyImage) -> EncodedImage:
        return image if isinstance(image, EncodedImage) else self.encode(image)

    def _encode_prompts(self, prompts: Prompts, reference: FeatureMaps | None = None) -> PromptTokens:
        """With vectors in float32, as they are kept."""
        if prompts.exemplars is not None:
            prompts = move_data_to_device(prompts, self.module.device)
        with self.autocast():
            tokens = self.module.detector.encode_prompts(prompts, reference)
        return tokens._replace(embed=tokens.embed.float())

    def _read(self, image: EncodedImage, exemplars: Marks) -> dict[str, tuple[Tensor, Tensor]]:
        return read_marks(partial(self._encode_prompts, reference=image.features), image.size, exemplars)

    def _asked(self, prompts: PromptSet) -> PromptTokens:
        """What the detector is asked with; of the last set it is kept, as one is asked of many images."""
        if self._last is None or self._last[0] is not prompts:
            reads_words = self._config.model.granularity == "word"
            compared = [name in prompts.appearance for name in prompts.names]
            tell_unfitted(self.module.detector.calibration.fitted_sources(), prompts.sources, compared)
            asked = asked_of(prompts, self.module.device, self._encode_prompts if reads_words else None, self._named)
            self._last = prompts, self.module.detector.prepared(asked)
        return self._last[1]
