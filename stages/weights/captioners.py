"""Weights of models that describe an image in words, in the layout that transformers reads."""

from stages.weights.entry import hub_bundle

_QWEN_TEXT = "ca10d7e9fb3ed18575dd1e277a2579c16d108e32f27439684afa0e10b1440910"
_QWEN_MERGES = "599bab54075088774b1733fde865d5bd747cbcc7a547c5bc12610e874e26f5e3"

# fmt: off
WEIGHTS = (
    *hub_bundle(
        "blip_base", "caption", "Salesforce/blip-image-captioning-base", "82a37760796d32b1411fe092ab5d4e227313294b", {
            "pytorch_model.bin": ("d6638651a5526cc2ede56f2b5104d6851b0755816d220e5e046870430180c767", 989_820_849),
            "config.json": ("f7846f82f4e2c4a2ccbab9ae8b0e44873540a271a76a1288effd078180c13a82", 4_563),
            "preprocessor_config.json": ("065c10ec97edc5081fbd9655b3d9d25e2647ea6d5dab873325e88eed12d80a7d", 287),
            "tokenizer.json": ("d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66", 711_396),
            "tokenizer_config.json": ("5c7f96096284c55e539eff95f4451c19efc34258ddb975a4400d052b77301e5e", 506),
            "special_tokens_map.json": ("b6d346be366a7d1d48332dbc9fdf3bf8960b5d879522b7799ddba59e76237ee3", 125),
            "vocab.txt": ("07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3", 231_508),
        },
        kind="caption/blip", licence="BSD-3-Clause", use="any", needed_by=("caption:blip", "training:caphuman"),
    ),
    *hub_bundle(
        "blip_large", "caption", "Salesforce/blip-image-captioning-large", "353689b859fcf0523410b1806dace5fb46ecdf41", {
            "model.safetensors": (None, 1_879_014_680),
            "config.json": (None, None),
            "preprocessor_config.json": (None, None),
            "tokenizer.json": (None, None),
            "tokenizer_config.json": (None, None),
            "special_tokens_map.json": (None, None),
            "vocab.txt": (None, None),
        },
        kind="caption/blip", licence="BSD-3-Clause", use="any", needed_by=("caption:blip",),
    ),
    *hub_bundle(
        "blip2_opt_2_7b", "caption", "Salesforce/blip2-opt-2.7b", "main", {
            "model-00001-of-00002.safetensors": (None, None),
            "model-00002-of-00002.safetensors": (None, None),
            "model.safetensors.index.json": (None, None),
            "config.json": (None, None),
            "generation_config.json": (None, None),
            "preprocessor_config.json": (None, None),
            "processor_config.json": (None, None),
            "tokenizer.json": (None, None),
            "tokenizer_config.json": (None, None),
        },
        kind="caption/blip2", licence="MIT (BLIP-2); its language model OPT is for non-commercial research only", use="non-commercial",
        needed_by=("caption:blip2",),
    ),
    *hub_bundle(
        "qwen2_vl_2b", "caption", "Qwen/Qwen2-VL-2B-Instruct", "895c3a49bc3fa70a340399125c650a463535e71c", {
            "model-00001-of-00002.safetensors": ("994ac2b03f97de8bc647d0fe5eba2e4b632b3e28dc03574c29bdfc36cf47e1b9", 3_988_609_112),
            "model-00002-of-00002.safetensors": ("92540d8353c8d226a589a3b179bdb33851c970ee2cc2ac7ba035f79425e7b833", 429_441_656),
            "model.safetensors.index.json": ("260ab9fa1418d6d6ab79daa1d9da2c47264f3b72edb4630fc799077ac67d27c6", 56_411),
            "config.json": ("422adefa19e62dd175961cec85bc0400344fe5bf9b22bd1182e05aaae78556e0", 1_196),
            "generation_config.json": ("d2864bf1edea5863d331edfff48106b586a366f5a2c41aa77731fadc53aa25d2", None),
            "preprocessor_config.json": ("b5eaad0c2815f07631535dcc58f3c462b0d73693638ad21d19f3c50820eae1cc", 347),
            "chat_template.json": ("ad60d90252ed0b0705ba14e2d0ad0fec0beac1ea955642b54059b36052d8bc96", None),
            "tokenizer.json": ("cb63a0a23eef3d5b01063a9880a1925a65aaf4d1591d519910ee3527852950a0", 7_029_741),
            "tokenizer_config.json": ("ff5c4fd898fe8c39591eb70e5d39d2782802d4204d6ae9ba1223252f354842a0", 4_190),
            "vocab.json": (_QWEN_TEXT, 2_776_833),
            "merges.txt": (_QWEN_MERGES, 1_671_839),
        },
        kind="caption/qwen_vl", licence="Apache-2.0", use="any", needed_by=("caption:qwen_vl", "training:flashface"),
    ),
    *hub_bundle(
        "qwen2_5_vl_3b", "caption", "Qwen/Qwen2.5-VL-3B-Instruct", "66285546d2b821cf421d4f5eb2576359d3770cd3", {
            "model-00001-of-00002.safetensors": (None, None),
            "model-00002-of-00002.safetensors": (None, None),
            "model.safetensors.index.json": (None, None),
            "config.json": (None, None),
            "generation_config.json": (None, None),
            "preprocessor_config.json": (None, None),
            "chat_template.json": (None, None),
            "tokenizer.json": (None, None),
            "tokenizer_config.json": (None, None),
            "vocab.json": (_QWEN_TEXT, 2_776_833),
            "merges.txt": (_QWEN_MERGES, 1_671_839),
        },
        kind="caption/qwen_vl", licence="Qwen research licence: non-commercial", use="non-commercial", needed_by=("caption:qwen_vl",),
    ),
    *hub_bundle(
        "qwen3_vl_2b", "caption", "Qwen/Qwen3-VL-2B-Instruct", "89644892e4d85e24eaac8bacfd4f463576704203", {
            "model.safetensors": ("7de1838c87a5349b016c26a1c3f7d2bc400a3d485f95ef39a7059ffd734977a0", 4_255_140_312),
            "config.json": ("bec4b3d446efa05807365c9e1cec03ac590836879d02f3a6da879971154bdd3b", 1_505),
            "generation_config.json": (None, 269),
            "preprocessor_config.json": ("27225450ac9c6529872ee1924fcb0962ff5634834f817040f444118116f4e516", 390),
            "video_preprocessor_config.json": ("7768af27c1fafa9cc9011c1dc20067e03f8915e03b63504550e11d5066986d13", 385),
            "chat_template.json": ("6f8a6a55027e3da5160105556cda5dd69f6423f1c32645f6730d32de7773d0c4", 5_502),
            "tokenizer.json": ("a5d85b6dcc535e6b93115a9ef287e6132fdbf30270da6218194ba742261173c7", 7_032_403),
            "tokenizer_config.json": ("c2da771801886ad9ae98181793ffd3dfb7f1af30f6f7c6a4e15d7dbba52e2399", 10_868),
            "vocab.json": (_QWEN_TEXT, 2_776_833),
            "merges.txt": (_QWEN_MERGES, 1_671_839),
        },
        kind="caption/qwen_vl", licence="Apache-2.0", use="any", needed_by=("caption:qwen_vl",),
    ),
)
# fmt: on
