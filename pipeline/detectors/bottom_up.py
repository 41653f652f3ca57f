"""Bottom-up attention: the Faster R-CNN of Visual Genome that the field's region features are from.

Anderson et al., "Bottom-Up and Top-Down Attention for Image Captioning and Visual Question
Answering", CVPR 2018, section 3.1: R101-C4, 1,600 classes, 2048-d.  It was trained in Caffe; what
Caffe does otherwise is done so here, as in the port to detectron2 by Tan
(github.com/airsplay/py-bottom-up-attention), whose files of weights fit.  Its 400 attributes are
predicted from a region's feature by a head of their own, and are no part of the feature.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

CONFIG = "VG-Detection/faster_rcnn_R_101_C4_caffemaxpool"
BASE = "Base-RCNN-C4.yaml"
"""The config of detectron2 that SETTINGS are laid over."""

SETTINGS: dict[str, Any] = {
    "MODEL.PIXEL_MEAN": [102.9801, 115.9465, 122.7717],
    "MODEL.RESNETS.DEPTH": 101,
    "MODEL.RPN.CONV_DIMS": [512],
    "MODEL.RPN.POST_NMS_TOPK_TEST": 300,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[64, 128, 256, 512]],
    "MODEL.ROI_HEADS.NUM_CLASSES": 1600,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIPool",
    "INPUT.MIN_SIZE_TEST": 600,
    "INPUT.MAX_SIZE_TEST": 1000,
}

URL = "http://nlp.cs.unc.edu/models/faster_rcnn_from_caffe.pkl"


def alter(network: Any) -> None:
    """Make a GeneralizedRCNN of detectron2 compute as Caffe does; its tensors stay.

    The stem pools without padding and rounds up; res5 keeps its 14 x 14 and widens
    its 3 x 3 convolutions instead.
    """
    network.backbone.stem = _Stem(network.backbone.stem.conv1)
    first = network.roi_heads.res5[0]
    first.conv1.stride = first.shortcut.stride = (1, 1)
    for block in network.roi_heads.res5:
        block.conv2.padding = block.conv2.dilation = (2, 2)


class _Stem(nn.Module):
    def __init__(self, conv1: nn.Module) -> None:
        super().__init__()
        self.conv1 = conv1

    def forward(self, pixels: Tensor) -> Tensor:
        return max_pool2d(relu(self.conv1(pixels)), kernel_size=3, stride=2, ceil_mode=True)
