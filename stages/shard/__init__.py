"""From kept faces to tars that a training job streams."""
