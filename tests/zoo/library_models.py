"""Models of well-known libraries with random weights: one or two of each family that they have."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

Builders = dict[str, Callable[[], Any]]

TORCHVISION = """
    alexnet convnext_tiny deeplabv3_mobilenet_v3_large deeplabv3_resnet50 densenet121
    efficientnet_b0 efficientnet_v2_s fasterrcnn_mobilenet_v3_large_fpn fasterrcnn_resnet50_fpn_v2
    fcn_resnet50 fcos_resnet50_fpn googlenet inception_v3 keypointrcnn_resnet50_fpn
    lraspp_mobilenet_v3_large maskrcnn_resnet50_fpn maxvit_t mc3_18 mnasnet1_0 mobilenet_v2
    mobilenet_v3_small mvit_v1_b mvit_v2_s r2plus1d_18 r3d_18 raft_small raft_large regnet_x_400mf
    regnet_y_400mf resnet18 resnext50_32x4d retinanet_resnet50_fpn s3d shufflenet_v2_x1_0
    squeezenet1_0 ssd300_vgg16 ssdlite320_mobilenet_v3_large swin3d_t swin_t swin_v2_t vgg11
    vgg16_bn vit_b_32
"""
TIMM = """
    resnet18 resnet50d resnext50_32x4d seresnet50 ecaresnet50d resnetv2_50 resnest14d
    res2net50_26w_4s
    regnetx_002 regnety_004 efficientnet_b0 tf_efficientnetv2_s mobilenetv2_100
    mobilenetv3_small_100 mobilenetv4_conv_small mixnet_s mnasnet_100 ghostnet_100 rexnet_100
    densenet121 dla34 hrnet_w18_small inception_v3 inception_v4 xception41 vgg11 dpn68
    convnext_atto convnextv2_atto vit_tiny_patch16_224 deit_tiny_patch16_224 beit_base_patch16_224
    eva02_tiny_patch14_224 cait_xxs24_224 crossvit_tiny_240 xcit_nano_12_p16_224 pit_ti_224
    swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 twins_pcpvt_small coat_tiny
    maxvit_tiny_tf_224 coatnet_0_rw_224 mobilevit_xxs mobilevitv2_050 efficientformer_l1 levit_128s
    edgenext_xx_small poolformer_s12 volo_d1_224 mixer_s32_224 resmlp_12_224 gmlp_s16_224 nfnet_f0
    tnt_s_patch16_224 visformer_tiny repvgg_a0 davit_tiny focalnet_tiny_srf hiera_tiny_224
    fastvit_t8 tiny_vit_5m_224 repvit_m0_9 naflexvit_base_patch16_gap
"""
ULTRALYTICS = {
    "yolov3-tiny": "Detection",
    "yolov5n": "Detection",
    "yolov6n": "Detection",
    "yolov8n": "Detection",
    "yolov8n-seg": "Segmentation",
    "yolov8n-cls": "Classification",
    "yolov8n-pose": "Pose",
    "yolov8n-obb": "OBB",
    "yolov8s-world": "World",
    "yolov9t": "Detection",
    "yolov10n": "Detection",
    "yolo11n": "Detection",
    "yolo11n-seg": "Segmentation",
    "yolo12n": "Detection",
    "yolo26n": "Detection",
    "rtdetr-resnet50": "RTDETRDetection",
}
SEGMENTATION = """
    unet/resnet34 unet/densenet121 unet/dpn68 unet/xception unet/inceptionv4 unet/mobileone_s0
    unet/timm-regnetx_002 unet/tu-resnet18 unet/tu-convnext_atto unetplusplus/resnet18
    manet/efficientnet-b0 linknet/mobilenet_v2 fpn/timm-efficientnet-b0 pspnet/vgg11
    deeplabv3/resnet18 deeplabv3plus/se_resnet50 pan/resnet18 upernet/mit_b0 segformer/mit_b0
    dpt/tu-vit_tiny_patch16_224.augreg_in21k
"""
OPEN_CLIP = """
    ViT-B-32 ViT-S-32-alt RN50 convnext_base coca_ViT-B-32 ViT-B-32-SigLIP2-256 EVA02-B-16
    ViT-B-16-quickgelu MobileCLIP-S1
"""


def torchvision() -> Builders:
    """Return models of classification, detection, segmentation, video and optical flow."""
    models: Any = importlib.import_module("torchvision.models")

    def build(name: str) -> Any:
        options: dict[str, Any] = {"weights": None}
        if "rcnn" in name or name.startswith(("deeplab", "fc", "lraspp", "retina", "ssd")):
            options["weights_backbone"] = None
        if name in ("googlenet", "inception_v3"):
            options["init_weights"] = False
        return models.get_model(name, **options)

    return {name: partial(build, name) for name in TORCHVISION.split()}


def timm() -> Builders:
    """Return backbones of images."""
    library: Any = importlib.import_module("timm")
    return {name: partial(library.create_model, name) for name in TIMM.split()}


def ultralytics() -> Builders:
    """Return detectors and their relatives."""
    tasks: Any = importlib.import_module("ultralytics.nn.tasks")
    builders = Builders()
    for name, task in ULTRALYTICS.items():
        kind = getattr(tasks, f"{task}Model")
        builders[name] = partial(kind, f"{name}.yaml", verbose=False)
    return builders


def segmentation_models_pytorch() -> Builders:
    """Return decoders of images, each with another encoder."""
    library: Any = importlib.import_module("segmentation_models_pytorch")
    builders = Builders()
    for name in SEGMENTATION.split():
        kind, encoder = name.split("/")
        builders[name] = partial(library.create_model, kind, encoder, encoder_weights=None)
    return builders


def efficientnet_pytorch() -> Builders:
    """Return EfficientNets."""
    library: Any = importlib.import_module("efficientnet_pytorch")
    names = [f"efficientnet-b{number}" for number in range(5)]
    return {name: partial(library.EfficientNet.from_name, name) for name in names}


def monai() -> Builders:
    """Return networks for medical images."""
    nets: Any = importlib.import_module("monai.networks.nets")
    small, steps, volume = (8, 16, 32), (2, 2), (32, 32, 32)
    vit = {"hidden_size": 48, "mlp_dim": 96, "num_heads": 12}
    image = (1, 16, 16)
    return {
        "UNet": lambda: nets.UNet(2, 1, 2, small, steps),
        "BasicUNet": lambda: nets.BasicUNet(2, 1, 2),
        "DynUNet": lambda: nets.DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2]),
        "SegResNet": lambda: nets.SegResNet(2),
        "SegResNetDS": lambda: nets.SegResNetDS(2),
        "UNETR": lambda: nets.UNETR(1, 2, volume, feature_size=8, **vit),
        "SwinUNETR": lambda: nets.SwinUNETR(in_channels=1, out_channels=2, feature_size=12),
        "DenseNet121": lambda: nets.DenseNet121(2, 1, 2),
        "resnet18": lambda: nets.resnet18(spatial_dims=2, n_input_channels=1),
        "SEResNet50": lambda: nets.SEResNet50(spatial_dims=2, in_channels=1, num_classes=2),
        "EfficientNetBN": lambda: nets.EfficientNetBN("efficientnet-b0", pretrained=False),
        "FlexibleUNet": lambda: nets.FlexibleUNet(3, 2, "efficientnet-b0"),
        "VNet": nets.VNet,
        "AttentionUnet": lambda: nets.AttentionUnet(2, 1, 2, (8, 16), (2,)),
        "AutoEncoder": lambda: nets.AutoEncoder(2, 1, 1, small, (2, 2, 2)),
        "VarAutoEncoder": lambda: nets.VarAutoEncoder(2, image, 1, 3, (4, 8), steps),
        "ViT": lambda: nets.ViT(1, (32, 32), (8, 8), num_layers=2, spatial_dims=2, **vit),
        "HighResNet": nets.HighResNet,
        "Regressor": lambda: nets.Regressor(image, (1,), (4, 8), steps),
        "Discriminator": lambda: nets.Discriminator(image, (4, 8), steps),
    }


def open_clip() -> Builders:
    """Return models of images and texts."""
    library: Any = importlib.import_module("open_clip")
    return {
        name: partial(library.create_model, name, pretrained=None) for name in OPEN_CLIP.split()
    }


def facenet_pytorch() -> Builders:
    """Return the network of faces, with and without its classes."""
    library: Any = importlib.import_module("facenet_pytorch")
    build = partial(library.InceptionResnetV1, pretrained=None)
    return {"embedding": build, "classes": partial(build, classify=True, num_classes=5)}


def vit_pytorch() -> Builders:
    """Return Vision Transformers."""
    options = {"image_size": 32, "patch_size": 8, "num_classes": 2, "dim": 16, "heads": 2}
    options |= {"depth": 1, "mlp_dim": 16}
    builders = Builders()
    for name, module in (
        ("ViT", "vit"),
        ("SimpleViT", "simple_vit"),
        ("DeepViT", "deepvit"),
        ("CaiT", "cait"),
        ("PiT", "pit"),
    ):
        library = importlib.import_module(f"vit_pytorch.{module}")
        more: dict[str, Any] = dict(options)
        if name == "CaiT":
            more["cls_depth"] = 1
        if name == "PiT":
            more["depth"] = (1, 1)
        builders[name] = partial(getattr(library, name), **more)
    return builders
