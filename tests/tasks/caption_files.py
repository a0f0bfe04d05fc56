"""Small files of captions in the published layouts."""

from pathlib import Path
from typing import Any

from tests.given import write


def msrvtt(folder: Path) -> Path:
    videos = [("video1", "train"), ("video2", "validate"), ("video7010", "test"), ("video7011", "test")]
    sentences = [(name, f"{name} caption {k}") for k in range(3) for name, _ in videos]
    write(
        folder / "MSRVTT_data.json",
        {
            "videos": [{"video_id": name, "split": split, "category": 3} for name, split in videos],
            "sentences": [{"sen_id": i, "video_id": name, "caption": c} for i, (name, c) in enumerate(sentences)],
        },
    )
    write(folder / "MSRVTT_JSFUSION_test.csv", 'key,vid_key,video_id,sentence\nret0,msr9770,video9770,"a, b"\n')
    write(folder / "MSRVTT_train.9k.csv", "video_id\nvideo7010\nvideo1\n")
    return folder


def vatex(folder: Path) -> Path:
    for split, names in (("training_v1.0", "ab"), ("validation_v1.0", "cd"), ("public_test_english_v1.1", "ef")):
        clips = [{"videoID": f"{name}_000001_000011", "enCap": [f"{name} {k}" for k in range(10)]} for name in names]
        write(folder / f"vatex_{split}.json", clips)
    write(folder / "list.txt", "d_000001_000011\nc_000001_000011\n")
    return folder


def youcook2(folder: Path) -> Path:
    def entry(subset: str) -> dict[str, Any]:
        steps = [{"id": k, "segment": [10 * k, 10 * k + 5], "sentence": f"{subset} {k}"} for k in range(2)]
        return {"duration": 40.0, "subset": subset, "recipe_type": "113", "annotations": steps}

    database = {"database": {"abc": entry("training"), "v_x": entry("validation"), "-_9": entry("validation")}}
    write(folder / "youcookii_annotations_trainval.json", database)
    return folder


def activitynet(folder: Path) -> Path:
    entry = {"duration": 9.0, "timestamps": [[0, 3], [3.5, 9]], "sentences": ["One.", "  Two."]}
    write(folder / "val_1.json", {"v_a": entry, "v_b": entry})
    return folder


def didemo(folder: Path) -> Path:
    said = [("a@N00_1.mov", "first"), ("b@N00_2.mp4", "only"), ("a@N00_1.mov", "second")]
    for split in ("train", "val", "test"):
        write(folder / f"{split}_data.json", [{"video": f"{split}{v}", "description": d, "times": []} for v, d in said])
    return folder


def own(folder: Path) -> Path:
    rows = "path,caption,split\nsub/a.mp4,one,test\nb.mp4,two,test\nsub/a.mp4,three,test\nc.mp4,four,train\n"
    return write(folder / "captions.csv", rows)
