"""Weights of face detectors."""

from stages.weights.entry import Weights

DLIB_PACKAGE = "face_recognition_models"
DLIB_SOURCE = (
    "https://github.com/davisking/dlib-models, in the Python package face_recognition_models 0.3.0"
)
INSIGHTFACE = "code MIT; insightface weights are for non-commercial research only"
INSIGHTFACE_RELEASE = "https://github.com/deepinsight/insightface/releases/download/v0.7"
WIDER_FACE = "trained on WIDER FACE, which is CC BY-NC-ND 4.0"
FACENET_MTCNN = "MIT (timesler/facenet-pytorch); trained on WIDER FACE and CelebA, whose images are for non-commercial research"
FACENET_DATA = "https://raw.githubusercontent.com/timesler/facenet-pytorch/787da06156087cd6b616fe6608213722bddc30cd/data"

# fmt: off
WEIGHTS = (
    Weights(
        "dlib_5_points", "models/shape_predictor_5_face_landmarks.dat",
        "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888", 9_150_489,
        "CC0-1.0", "any", DLIB_SOURCE, DLIB_PACKAGE, kind="detect/dlib", needed_by=("detect:dlib",),
    ),
    Weights(
        "scrfd_2.5g_bnkps", "detect/scrfd_2.5g_bnkps.onnx",
        "bc24bb349491481c3ca793cf89306723162c280cb284c5a5e49df3760bf5c2ce", 3_290_207,
        INSIGHTFACE, "non-commercial", "https://github.com/darzhz/pixamatch, models; insightface model zoo export",
        normalisation=(127.5, 128.0), kind="detect/scrfd", needed_by=("detect:scrfd",),
        address="https://raw.githubusercontent.com/darzhz/pixamatch/7cc795413024ba57a193a8fa503968af09442a17/models/scrfd_2.5g_bnkps.onnx",
    ),
    Weights(
        "scrfd_500m_kps", "detect/scrfd_500m_kps.onnx",
        "517cb1980c72422e676738fc45431700fb7cbee56d0f825b623ee427b3e5ce58", 2_524_095,
        INSIGHTFACE, "non-commercial", "https://github.com/hpc203/scrfd-opencv, weights; trained by insightface",
        normalisation=(127.5, 128.0), kind="detect/scrfd", needed_by=("detect:scrfd",),
        address="https://raw.githubusercontent.com/hpc203/scrfd-opencv/eee7bf1ee0dbe9615d8d8caaa53702e0d2dca001/weights/scrfd_500m_kps.onnx",
    ),
    Weights(
        "scrfd_10g_bnkps", "detect/scrfd_10g_bnkps.onnx",
        "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91", 16_923_827,
        INSIGHTFACE, "non-commercial", "insightface release v0.7, antelopev2.zip; the same file is det_10g.onnx in buffalo_l.zip",
        normalisation=(127.5, 128.0), kind="detect/scrfd", needed_by=("detect:scrfd",),
        address=f"{INSIGHTFACE_RELEASE}/antelopev2.zip", member="antelopev2/scrfd_10g_bnkps.onnx",
    ),
    Weights(
        "retinaface_r50", "detect/Resnet50_Final.pth",
        "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d", 109_497_761,
        f"MIT (biubug6/Pytorch_Retinaface); {WIDER_FACE}", "non-commercial",
        "https://github.com/biubug6/Pytorch_Retinaface, Resnet50_Final.pth, as facexlib 0.1.0 and ibug's face_detection hand it on",
        kind="detect/retinaface", needed_by=("detect:retinaface", "training:flashface"),
        address="https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",
    ),
    Weights(
        "retinaface_mobilenet025", "detect/retinaface_mobilenet0.25_Final.pth",
        "5f88f7957d9eaef82b49b9e0202bc56e97292e2aede2999209accd34442cc4df", 1_786_259,
        f"MIT (biubug6/Pytorch_Retinaface); {WIDER_FACE}", "non-commercial",
        "https://github.com/cunjian/pytorch_face_landmark, Retinaface/weights/mobilenet0.25_Final.pth; trained by biubug6",
        kind="detect/retinaface", needed_by=("detect:retinaface",),
        address="https://raw.githubusercontent.com/cunjian/pytorch_face_landmark/6f34bf9f034aa2f521952f825e6ccc567deb42d6/"
        "Retinaface/weights/mobilenet0.25_Final.pth",
    ),
    # The same keys as the one above, but anchors of 10 to 256 pixels and rectifiers that do not leak.
    Weights(
        "retinaface_mobilenet025_1mb", "detect/retinaface_mobilenet0.25_1MB_Final.pth",
        "ed6fa7d45a5179f03cb5ce82c73b0c6711372968e53782e88395acee88d319e1", 1_789_735,
        f"MIT (biubug6/Face-Detector-1MB-with-landmark); {WIDER_FACE}", "non-commercial",
        "https://github.com/biubug6/Face-Detector-1MB-with-landmark, weights/mobilenet0.25_Final.pth",
        kind="detect/retinaface_1mb", needed_by=("detect:retinaface",),
        address="https://raw.githubusercontent.com/biubug6/Face-Detector-1MB-with-landmark/"
        "2b075657aef954b9426f938ac7fce100b6910fe6/weights/mobilenet0.25_Final.pth",
    ),
    Weights(
        "retinaface_r50_pytorch", "detect/retinaface_resnet50_2020-07-20.pth", None, None,
        f"MIT (ternaus/retinaface); {WIDER_FACE}", "non-commercial",
        "https://github.com/ternaus/retinaface, release 0.01", kind="detect/retinaface_pytorch",
        needed_by=("detect:retinaface",),
        address="https://github.com/ternaus/retinaface/releases/download/0.01/retinaface_resnet50_2020-07-20-f168fae3c.zip",
        member="retinaface_resnet50_2020-07-20.pth",
    ),
    Weights(
        "mtcnn_pnet", "detect/mtcnn_pnet.pt", "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f", 28_570,
        FACENET_MTCNN, "non-commercial", "https://github.com/timesler/facenet-pytorch, data/pnet.pt",
        kind="detect/mtcnn", needed_by=("detect:mtcnn", "eval:facenet"), address=f"{FACENET_DATA}/pnet.pt",
    ),
    Weights(
        "mtcnn_rnet", "detect/mtcnn_rnet.pt", "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86", 403_147,
        FACENET_MTCNN, "non-commercial", "https://github.com/timesler/facenet-pytorch, data/rnet.pt",
        kind="detect/mtcnn", needed_by=("detect:mtcnn", "eval:facenet"), address=f"{FACENET_DATA}/rnet.pt",
    ),
    Weights(
        "mtcnn_onet", "detect/mtcnn_onet.pt", "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d", 1_559_269,
        FACENET_MTCNN, "non-commercial", "https://github.com/timesler/facenet-pytorch, data/onet.pt",
        kind="detect/mtcnn", needed_by=("detect:mtcnn", "eval:facenet"), address=f"{FACENET_DATA}/onet.pt",
    ),
    Weights(
        "yunet_320", "detect/yunet_n_320_320.onnx",
        "81dbde155e982455488235acb8ec2dec5d647edf7cf7080d33e4abb69b93a0d2", 317_434,
        f"BSD-3-Clause (ShiqiYu/libfacedetection.train); {WIDER_FACE}", "non-commercial",
        "https://github.com/ShiqiYu/libfacedetection.train, onnx/yunet_n_320_320.onnx",
        kind="detect/yunet", needed_by=("detect:yunet",),
        address="https://raw.githubusercontent.com/ShiqiYu/libfacedetection.train/0047ac24afb1a50a0c6105001c89d1b5b805dbf1/"
        "onnx/yunet_n_320_320.onnx",
    ),
)
# fmt: on
