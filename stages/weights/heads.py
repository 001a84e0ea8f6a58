"""Head models and the networks that fit them. Most owners hand them out to registered people only."""

from stages.weights.entry import Weights

_FLAME = "MPI licence for FLAME: non-commercial scientific research, no redistribution"
_ICT = "https://raw.githubusercontent.com/ICT-VGL/ICT-FaceKit/da5f95a607f5e6b37755b38d3385d7f2853732e5/FaceXModel"

# fmt: off
WEIGHTS = (
    Weights(
        "flame_2020", "3dmm/generic_model.pkl", None, None, _FLAME, "non-commercial", "https://flame.is.tue.mpg.de, FLAME 2020",
        kind="fit/flame", needed_by=("fit:deca", "fit:emoca", "eval:deca", "training:caphuman"), md5="cfc3b95159b2a8981ebc347170202ba5",
        by_hand="register at https://flame.is.tue.mpg.de, download FLAME 2020 (FLAME2020.zip) and take generic_model.pkl out of it",
    ),
    Weights(
        "flame_texture", "3dmm/FLAME_texture.npz", None, None, _FLAME, "non-commercial", "https://flame.is.tue.mpg.de, texture space",
        kind="fit/flame", needed_by=("fit:deca", "training:caphuman"), md5="2a3982db7667c32d0dd13351aa6758f7",
        by_hand="register at https://flame.is.tue.mpg.de, download the texture space and take FLAME_texture.npz out of it",
    ),
    Weights(
        "flame_landmarks", "3dmm/landmark_embedding.npy",
        "8095348eeafce5a02f6bd8765146307f9567a3f03b316d788a2e47336d667954", 31_292,
        "MPI licence for DECA: non-commercial scientific research", "non-commercial",
        "https://github.com/yfeng95/DECA, data/landmark_embedding.npy: where the 68 points lie on the mesh",
        kind="fit/flame", needed_by=("fit:deca", "eval:deca"),
        address="https://raw.githubusercontent.com/yfeng95/DECA/a11554ae2a2b0f3998cf1fa94dd4db03babb34a2/data/landmark_embedding.npy",
    ),
    Weights(
        "deca", "3dmm/deca_model.tar", None, None,
        "MPI licence for DECA: non-commercial scientific research, no redistribution", "non-commercial",
        "https://github.com/yfeng95/DECA, deca_model.tar", kind="fit/deca", needed_by=("fit:deca", "eval:deca", "training:caphuman"),
        md5="b182e51c26e5a73b1f7a5c53cf8cc038",
        by_hand="register at https://flame.is.tue.mpg.de; the README of github.com/yfeng95/DECA links deca_model.tar",
    ),
    Weights(
        "emoca_v2", "3dmm/EMOCA_v2_lr_mse_20.ckpt", None, None,
        "MPI licence for EMOCA: non-commercial scientific research, no redistribution", "non-commercial",
        "https://emoca.is.tue.mpg.de, EMOCA_v2_lr_mse_20.zip, detail/checkpoints", kind="fit/emoca", needed_by=("fit:emoca", "eval:emoca"),
        by_hand="register at https://emoca.is.tue.mpg.de, download EMOCA_v2_lr_mse_20.zip, take the one .ckpt file below detail/checkpoints"
        " out of it and name it EMOCA_v2_lr_mse_20.ckpt",
    ),
    Weights(
        "ict_facekit", "3dmm/ict/ict_facekit_face_head_11248v_fp16.npz",
        "c469102ad96fef40df30d0a8374fa9f27bcf2a732cb69c255e6cbf2863b95b8c", 7_949_107, "MIT (USC ICT)", "any",
        "https://github.com/ICT-VGL/ICT-FaceKit at da5f95a: neutral head, 100 identity and 57 expression shapes in half floats",
        kind="fit/ict", needed_by=("fit:ict",),
        by_hand="packed from the .obj files in FaceXModel of github.com/ICT-VGL/ICT-FaceKit; there is no public copy",
    ),
    Weights(
        "ict_vertices", "3dmm/ict/vertex_indices.json", "4f9b35306299980dd46bee4a6b79bb95dfae1953693b74b35a64f7febfd081a5", 164_052,
        "MIT (USC ICT)", "any", "https://github.com/ICT-VGL/ICT-FaceKit, FaceXModel/vertex_indices.json: regions and 68 points",
        kind="fit/ict", needed_by=("fit:ict",), address=f"{_ICT}/vertex_indices.json",
    ),
    Weights(
        "mediapipe_face_mesh", "mediapipe/canonical_face_model.obj",
        "8bac80443397e113f41a8b565ea72c59390bc031d9defab289dba7bc0c54e618", 45_999, "Apache-2.0", "any",
        "https://github.com/google-ai-edge/mediapipe, canonical face model of 468 points", kind="fit/mediapipe",
        needed_by=("fit:mediapipe",),
        address="https://raw.githubusercontent.com/google-ai-edge/mediapipe/85c0cdc7d70653888903c88df45962b764296342/"
        "mediapipe/modules/face_geometry/data/canonical_face_model.obj",
    ),
)
# fmt: on
