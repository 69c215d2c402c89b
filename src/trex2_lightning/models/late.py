"""T-Rex2: prompts meet the image only at query selection and in the final dot product (T-Rex2 section 3)."""

from __future__ import annotations

from trex2_lightning.models.detector import PromptedDetector
from trex2_lightning.structures import DetectorOutput, FeatureMaps, Images, NoisedQueries, PromptTokens


class LateFusionDetector(PromptedDetector):
    """Image features and prompt vectors are made, and can be cached, each without the other."""

    def encode_image(self, images: Images) -> FeatureMaps:
        """Backbone, neck and deformable encoder."""
        with self._recording("backbone", "neck", "encoder"):
            return self.encoder(self._seen(images))

    def decode(
        self, features: FeatureMaps, prompts: PromptTokens, noised: NoisedQueries | None = None
    ) -> DetectorOutput:
        """Query selection, decoder, similarity head."""
        content, proposals = self.selection(features, prompts)
        return self._decode_queries(content, proposals, features, prompts, noised)
